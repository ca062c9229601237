"""Contexts: which gateway is talked to, with which token. The file, the environment, and who wins.

`$XDG_CONFIG_HOME/vireo/contexts.toml`, readable by its owner alone:

    current = "home"

    [contexts.home]
    url = "https://vireo.example.net"
    token_file = "/home/me/.secrets/vireo"      # or: token = "…"
    ca_file = "/etc/ssl/mine.pem"               # if the gateway's certificate needs it
"""

from __future__ import annotations

import os
import stat
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from schemas.ids import NAME_PATTERN

DEFAULT_URL = "http://127.0.0.1:8470"

_FILE_BYTES = 1 << 20
_TOKEN_BYTES = 4096


class ContextError(Exception):
    """A context, or the file of contexts, is not usable; the text says what to do about it."""


class Context(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    url: str
    token: str | None = None
    token_file: str | None = None
    ca_file: str | None = None

    def __repr__(self) -> str:
        return f"Context(url={self.url!r}, token={'***' if self.token else None!r})"


ContextName = Annotated[str, Meta(pattern=NAME_PATTERN)]


class Contexts(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    current: str | None = None
    contexts: dict[ContextName, Context] = {}

    def with_context(self, name: str, context: Context, *, use: bool) -> Contexts:
        current = name if use or self.current is None else self.current
        return Contexts(current=current, contexts={**self.contexts, name: context})

    def without(self, name: str) -> Contexts:
        left = {key: value for key, value in self.contexts.items() if key != name}
        return Contexts(current=None if self.current == name else self.current, contexts=left)


class Target(Struct, frozen=True, kw_only=True):
    """Where a client goes, and from where that is known."""

    url: str
    token: str | None = None
    token_file: str | None = None
    ca_file: str | None = None
    context: str | None = None

    def __repr__(self) -> str:
        return f"Target(url={self.url!r}, context={self.context!r})"

    def read_token(self) -> str | None:
        """The token, from its file if that is where it is. Raises ContextError."""
        if self.token is not None or self.token_file is None:
            return self.token
        try:
            with Path(self.token_file).expanduser().open("rb") as file:
                text = file.read(_TOKEN_BYTES).decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ContextError(f"cannot read the token file {self.token_file}: {error}") from error
        if not text:
            raise ContextError(f"the token file {self.token_file} is empty")
        return text


def contexts_file(environ: Mapping[str, str]) -> Path:
    home = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME") or "~") / ".config")
    return Path(home).expanduser() / "vireo" / "contexts.toml"


def load(path: Path) -> Contexts:
    """What the file says; nothing if there is none. Raises ContextError."""
    try:
        with path.open("rb") as file:
            raw = file.read(_FILE_BYTES + 1)
    except FileNotFoundError:
        return Contexts()
    except OSError as error:
        raise ContextError(f"cannot read {path}: {error}") from error
    if len(raw) > _FILE_BYTES:
        raise ContextError(f"{path} is larger than {_FILE_BYTES} bytes")
    try:
        return msgspec.convert(tomllib.loads(raw.decode()), Contexts)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ContextError(f"{path} is not valid: {error}") from error


def save(path: Path, contexts: Contexts) -> None:
    """Replace the file as a whole, for its owner's eyes only. Raises ContextError."""
    import tomli_w

    content = tomli_w.dumps(msgspec.to_builtins(contexts)).encode()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # mkstemp makes the file 0600 from the start.
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".contexts-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ContextError(f"cannot write {path}: {error}") from error


def chosen(environ: Mapping[str, str], *, context: str | None = None) -> Target:
    """Where to go: the context named here, or by VIREO_CONTEXT, or the current one; VIREO_URL and
    VIREO_TOKEN go before what it says. Raises ContextError.

    A context's token is for its own address: an address from the environment doesn't get it.
    """
    contexts = load(contexts_file(environ))
    name = context or environ.get("VIREO_CONTEXT") or contexts.current
    found = _named(contexts, name) if name else None
    url = environ.get("VIREO_URL") or (found.url if found else DEFAULT_URL)
    token = environ.get("VIREO_TOKEN") or None
    if found is None or url.rstrip("/") != found.url.rstrip("/"):
        return Target(url=url, token=token)
    if token is not None:
        return Target(url=url, token=token, ca_file=found.ca_file, context=name)
    return Target(
        url=url,
        token=found.token,
        token_file=found.token_file,
        ca_file=found.ca_file,
        context=name,
    )


def is_private(path: Path) -> bool:
    """Whether a file is closed to everybody but its owner (true if there is none)."""
    try:
        return not stat.S_IMODE(path.stat().st_mode) & 0o077
    except OSError:
        return True


def _named(contexts: Contexts, name: str) -> Context:
    if name in contexts.contexts:
        return contexts.contexts[name]
    known = ", ".join(sorted(contexts.contexts)) or "none"
    raise ContextError(f"there is no context {name!r} (known: {known})")
