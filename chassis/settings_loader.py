"""Loading settings: defaults ← TOML file ← environment, and everything that is wrong with them at once.

The generic half: knows no setting. `chassis.settings` holds the settings that every service has.

Variables: a setting `nats.url` is `VIREO_NATS_URL` for every service where it is a shared one, and
`VIREO_GATEWAY_NATS_URL` for the gateway alone (the stronger of the two). A setting that only the
gateway has is `VIREO_GATEWAY_…` only. So one environment can serve several services: each overlooks
the prefixes of its neighbours and refuses what is left over.
Lists are written `a,b,c` or as JSON, tables `key=value,key=value` or as JSON; an empty variable means
"left out" where a setting may be left out.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_origin

import msgspec
from msgspec import Struct

from chassis.secret import Secret
from chassis.settings_fields import ROOT, Leaf, bare, group_of, leaves, optional, variables

S = TypeVar("S", bound=Struct)


class Fault(Struct, frozen=True, order=True):
    """One thing that is wrong: where it stands (file and key, or variable) and what it is."""

    where: str
    what: str


class SettingsError(Exception):
    """The settings cannot be used; `faults` names everything that is wrong."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(sorted(faults))
        lines = [f"  {fault.where}: {fault.what}" for fault in self.faults]
        noun = "1 setting is" if len(lines) == 1 else f"{len(lines)} settings are"
        super().__init__("\n".join([f"{noun} wrong:", *lines]))


class _Given(Struct, frozen=True):
    """A value that somebody set, and where."""

    value: Any
    where: str
    text: bool
    """Whether it is the text of a variable, still to be read as the setting's type."""


def load(
    settings: type[S],
    *,
    service: str,
    file: Path | None,
    environ: Mapping[str, str],
    shared: type[Struct] | None = None,
    overlook: Collection[str] = (),
) -> S:
    """The settings of `service`. Raises SettingsError, which names every fault.

    `overlook` are names after `VIREO_` that belong to others: whole names, or prefixes ending in `_`.
    """
    fields = leaves(settings, shared)
    faults: list[Fault] = []
    given = _from_file(fields, file, faults) if file else {}
    given |= _from_environment(fields, service, environ, overlook, faults)
    values: dict[tuple[str, ...], Any] = {}
    for leaf in fields:
        _settle(leaf, given.get(leaf.path), service, values, faults)
    if faults:
        raise SettingsError(faults)
    built = _build(settings, (), values, faults)
    if faults or built is None:
        raise SettingsError(faults)
    return built


def _settle(
    leaf: Leaf,
    given: _Given | None,
    service: str,
    values: dict[tuple[str, ...], Any],
    faults: list[Fault],
) -> None:
    """Choose a leaf's value: what was given if it fits, else the default, else a fault."""
    if given is None and leaf.required:
        ways = f"set `{leaf.key}` in the file or {variables(leaf, service)[-1]}"
        faults.append(Fault(leaf.key, f"missing: {ways}"))
    elif given is None:
        values[leaf.path] = leaf.default
    else:
        try:
            values[leaf.path] = _read(leaf.hint, given)
        except (msgspec.ValidationError, ValueError) as error:
            faults.append(Fault(given.where, _plain(leaf, error)))


def _plain(leaf: Leaf, error: Exception) -> str:
    """The error, without the value where that is a secret's."""
    return "not a usable secret" if leaf.secret else str(error).replace(" - at `$`", "")


# --- the file


def _from_file(
    fields: Sequence[Leaf], file: Path, faults: list[Fault]
) -> dict[tuple[str, ...], _Given]:
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        faults.append(Fault(str(file), f"cannot be read: {error}"))
        return {}
    given: dict[tuple[str, ...], _Given] = {}
    _read_table(table, (), {leaf.path for leaf in fields}, file, given, faults)
    return given


def _read_table(
    table: Mapping[str, Any],
    path: tuple[str, ...],
    known: Collection[tuple[str, ...]],
    file: Path,
    given: dict[tuple[str, ...], _Given],
    faults: list[Fault],
) -> None:
    groups = {leaf[: len(path) + 1] for leaf in known if len(leaf) > len(path) + 1}
    for key, value in table.items():
        here = (*path, key)
        where = f"{file}: {'.'.join(here)}"
        if here in known:
            given[here] = _Given(value, where, text=False)
        elif here in groups and isinstance(value, Mapping):
            _read_table(value, here, known, file, given, faults)
        elif here in groups:
            faults.append(Fault(where, f"should be a table, is {value!r}"))
        else:
            names = [".".join(leaf) for leaf in sorted(known)]
            faults.append(Fault(where, "unknown setting" + _meant(".".join(here), names)))


# --- the environment


def _from_environment(
    fields: Sequence[Leaf],
    service: str,
    environ: Mapping[str, str],
    overlook: Collection[str],
    faults: list[Fault],
) -> dict[tuple[str, ...], _Given]:
    given: dict[tuple[str, ...], _Given] = {}
    known: set[str] = set()
    for leaf in fields:
        names = variables(leaf, service)
        known.update(names)
        name = next((name for name in names if name in environ), None)
        if name is not None:
            given[leaf.path] = _Given(environ[name], name, text=True)
    for name in environ:
        if name not in known and _is_ours(name, service, overlook):
            faults.append(Fault(name, "unknown setting" + _meant(name, sorted(known))))
    return given


def _is_ours(name: str, service: str, overlook: Collection[str]) -> bool:
    """Whether a variable claims to be a setting of this service."""
    if not name.startswith(f"{ROOT}_"):
        return False
    rest = name.removeprefix(f"{ROOT}_")
    if rest.startswith(f"{service.upper()}_"):
        return True
    return not any(
        rest == other or (other.endswith("_") and rest.startswith(other)) for other in overlook
    )


def _meant(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


# --- values


def _read(hint: Any, given: _Given) -> Any:
    """A value as the type that the setting has. Raises ValidationError or ValueError."""
    value = _from_text(hint, given.value) if given.text else given.value
    return msgspec.convert(value, hint, strict=not given.text, dec_hook=_decode)


def _from_text(hint: Any, text: str) -> Any:
    if text == "" and optional(hint):
        return None
    plain = bare(hint)
    origin = get_origin(plain) or plain
    if origin in (str, int, float, bool, Path, Secret, Literal):
        return text
    if text.startswith(("[", "{")):
        return msgspec.json.decode(text)
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if origin in (tuple, list, frozenset):
        return parts
    if origin is dict:
        return dict(_pair(part) for part in parts)
    return msgspec.json.decode(text)


def _pair(part: str) -> tuple[str, str]:
    key, separator, value = part.partition("=")
    if not separator:
        raise ValueError(f"expected key=value, got {part!r}")
    return key.strip(), value.strip()


def _decode(wanted: type, value: Any) -> Any:
    """Types that msgspec doesn't know."""
    if wanted in (Secret, Path):
        if not isinstance(value, str):
            raise ValueError(f"Expected text, got {type(value).__name__}")
        return wanted(value)
    raise TypeError(f"settings cannot hold a {wanted.__name__}")


def _build(
    settings: type[S],
    path: tuple[str, ...],
    values: Mapping[tuple[str, ...], Any],
    faults: list[Fault],
) -> S | None:
    """The Structs from the inside out. A `__post_init__` may still refuse a combination."""
    arguments: dict[str, Any] = {}
    for field in msgspec.structs.fields(settings):
        here = (*path, field.encode_name)
        group = group_of(field.type)
        arguments[field.name] = _build(group, here, values, faults) if group else values[here]
    if faults:
        return None
    try:
        return settings(**arguments)
    except ValueError as error:
        faults.append(Fault(".".join(path) or "settings", str(error)))
        return None


__all__ = ["Fault", "SettingsError", "load"]
