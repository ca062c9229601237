"""The tokens that are good, kept up to date from CONFIG, and the first one, made at the first start.

What belongs here: following `token.*` and making `token.admin`. Who a header belongs to is `decide`'s.
A token in the clear exists here for the moment of its making only; it is never logged.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import structlog

from chassis import kv
from chassis.bus import Bus, CaughtUp, Conflict, Expect, Incoming, Start, Unavailable
from chassis.service import Rig
from schemas import subjects
from services.gateway import decide
from services.gateway.model import ADMIN, TOKEN_KEYS, TokenRecord

log = structlog.get_logger()

RETRY_S = 1.0


class Tokens:
    """The records of all good tokens by their hash. `ready` once all that there are were read."""

    def __init__(self) -> None:
        self.by_hash: dict[str, TokenRecord] = {}
        self.ready = False
        self._hash_of_key: dict[str, str] = {}

    def apply(self, entry: kv.Entry) -> None:
        """Take one revision of a key: a record, or its end."""
        self._forget(entry.key)
        if entry.value is None:
            return
        try:
            record = msgspec.json.decode(entry.value, type=TokenRecord)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            log.error("token_record_unreadable", key=entry.key, revision=entry.revision)
            return
        self.by_hash[record.hash] = record
        self._hash_of_key[entry.key] = record.hash

    def _forget(self, key: str) -> None:
        old = self._hash_of_key.pop(key, None)
        if old is not None and old not in self._hash_of_key.values():
            self.by_hash.pop(old, None)


async def follow_tokens(bus: Bus, tokens: Tokens) -> None:
    """Keep `tokens` as CONFIG has them, for ever: a token that is revoked is refused at once."""
    keys = [kv.subject_of(subjects.KV_CONFIG, TOKEN_KEYS)]
    start = Start(at="last_per_subject")
    stream = kv.stream_of(subjects.KV_CONFIG)
    async with bus.follow(stream, keys, start=start) as messages:
        async for message in messages:
            if isinstance(message, CaughtUp):
                tokens.ready = True
            elif isinstance(message, Incoming):
                tokens.apply(kv.entry(message))


async def ensure_admin(rig: Rig, token_file: Path | None) -> None:
    """See that there is, or was, an admin token; waits for the bus for as long as it takes."""
    while True:
        try:
            await _ensure_admin(rig, token_file)
        except Unavailable as error:
            log.warning("admin_awaits_bus", error=str(error))
            await rig.clock.sleep(RETRY_S)
        else:
            return


async def _ensure_admin(rig: Rig, token_file: Path | None) -> None:
    """Make `token.admin` if there was never one, and hand it out once: to the file, else to stdout.

    The file is written first: after a crash in between, the next start finds the token there and
    stores its hash. A token that was revoked is not made again.
    """
    stream, subject = _admin_place()
    if await rig.bus.last(stream, subject) is not None:
        return
    found = _read(token_file) if token_file is not None else None
    token = found or decide.token_from(os.urandom(32))
    if token_file is not None and found is None:
        _write(token_file, token)
    if not await _store(rig, token):
        if token_file is not None and found is None:
            token_file.unlink(missing_ok=True)
    elif token_file is None:
        sys.stdout.write(f"admin token, shown this once: {token}\n")
        sys.stdout.flush()
    else:
        log.info("admin_token_written", file=str(token_file))


async def _store(rig: Rig, token: str) -> bool:
    """Whether the token became the admin's; False if another gateway was first."""
    record = TokenRecord(
        name=ADMIN, hash=decide.token_hash(token), created_at=rig.clock.now(), role="admin"
    )
    expect = Expect(sequence=0, over=_admin_place()[1])
    value = msgspec.json.encode(record)
    try:
        await rig.bus.publish(kv.put(subjects.KV_CONFIG, f"token.{ADMIN}", value, expect=expect))
    except Conflict:
        return False
    return True


def _admin_place() -> tuple[str, str]:
    return kv.stream_of(subjects.KV_CONFIG), kv.subject_of(subjects.KV_CONFIG, f"token.{ADMIN}")


def _read(path: Path) -> str | None:
    """The token that an earlier start left, if the file holds one."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return text if decide.is_token(text) else None


def _write(path: Path, token: str) -> None:
    """Write for the owner alone, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(token + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
