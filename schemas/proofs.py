"""Files of events with the proof that they stand in the ledger, and checking one offline. Pure.

A file is JSON Lines. First a line that says what it is; then groups: a signed seal with the hashes that
its tree consists of besides the events that follow, and those events, each with the columns that were
hashed with it. A group holds events of one day, in the order of the ledger.

`{"ledger":1,…}` · `{"seal":{…},"rows":[…],"proof":["…"]}` · `{"event":{CloudEvent},"row":{…}}`

Bytes that do not fit into a line as they are (JSON with line breaks) stand as base64 under `bytes`.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from schemas.ledger import day_of, embeds, hash_of, microseconds
from schemas.merkle import Unproven, proven_root
from schemas.seals import Hex, Seal, SignedSeal, seal_in
from schemas.wire import Undecodable, read_header

FORMAT = 1


class Place(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where an event stands in the ledger, and all that is hashed with it."""

    number: Annotated[int, Meta(ge=1)]
    position: int
    received_at: datetime
    previous: Hex
    hash: Hex
    operation: str | None = None
    vm: str | None = None
    host: str | None = None


class ProvenEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line with an event: its bytes as JSON or, where they take several lines, as base64."""

    row: Place
    event: Raw
    """Null where they stand under `bytes`."""
    bytes: str = ""

    @property
    def envelope(self) -> Any:
        """The bytes as they were published. Raises ValueError."""
        return b64decode(self.bytes, validate=True) if self.bytes else bytes(self.event)


class Group(Struct, frozen=True, kw_only=True):
    """A line with a seal: it and the hashes prove the events that follow, whose numbers are `rows`."""

    seal: SignedSeal
    rows: tuple[int, ...]
    proof: tuple[Hex, ...]


class Title(Struct, frozen=True, kw_only=True):
    """The first line."""

    ledger: Annotated[int, Meta(ge=1)]
    stream: str
    exported_at: datetime
    selection: dict[str, str] = {}


class _Line(Struct, frozen=True):
    """What tells lines apart."""

    ledger: Raw = Raw()
    seal: Raw = Raw()
    row: Raw = Raw()


class Finding(Struct, frozen=True, kw_only=True):
    """What is wrong with a file, and in which line; the event's number and id where they are known."""

    line: int
    what: str
    number: int | None = None
    id: str | None = None


class Chain(Struct, frozen=True, kw_only=True):
    """A piece of the ledger, each row of which rests on the one before."""

    first: int
    previous: Hex
    """What the first row rests on."""
    last: int
    hash: Hex
    """Of the last row."""


class Progress(Struct, frozen=True, kw_only=True):
    """How far a check has come."""

    line: int
    proven: int
    """Events under a seal whose signature holds."""
    chain: Chain | None = None
    """All events of the file, at its end, if they are a piece of the ledger without a hole."""
    findings: tuple[Finding, ...] = ()


def proven_event(envelope: bytes, place: Place) -> ProvenEvent:
    if embeds(envelope):
        return ProvenEvent(row=place, event=Raw(envelope))
    return ProvenEvent(row=place, event=Raw(b"null"), bytes=b64encode(envelope).decode())


def hash_of_event(stream: str, place: Place, envelope: bytes) -> bytes:
    return hash_of(
        bytes.fromhex(place.previous),
        stream=stream,
        number=place.number,
        position=place.position,
        received_us=microseconds(place.received_at),
        operation=place.operation,
        vm=place.vm,
        host=place.host,
        envelope=envelope,
    )


_line = msgspec.json.Decoder(_Line)
_title = msgspec.json.Decoder(Title)
_group = msgspec.json.Decoder(Group)
_event = msgspec.json.Decoder(ProvenEvent)


def event_in(line: bytes) -> ProvenEvent | None:
    """The event of a line; None if the line says something else. Raises ValueError, MsgspecError."""
    return _event.decode(line) if bytes(_line.decode(line).row) else None


class _Open(Struct, kw_only=True):
    """A group that is being read."""

    line: int
    group: Group
    seal: Seal
    trusted: bool
    members: dict[int, bytes]
    events: list[tuple[int, int, str]]


def check_file(
    lines: Iterable[bytes], *, key: str, is_signed: Callable[[SignedSeal], bool]
) -> Iterator[Progress]:
    """Check a file line by line: what was found, and how many events were proven so far.

    `key` is the public key that one trusts; a seal under another one proves nothing.
    """
    check = _Check(key, is_signed)
    number = 0
    for number, line in enumerate(lines, start=1):
        found = check.line(number, line) if line.strip() else []
        if found or number % 1000 == 0:
            yield Progress(line=number, proven=check.proven, findings=tuple(found))
    found = check.end()
    yield Progress(
        line=number, proven=check.proven, chain=check.chain.piece(), findings=tuple(found)
    )


class _Links:
    """The events of a file as long as each follows the one before."""

    def __init__(self) -> None:
        self._first: Place | None = None
        self._last: Place | None = None
        self._whole = True

    def add(self, place: Place) -> None:
        before = self._last
        if before is None:
            self._first = place
        elif (place.number, place.previous) != (before.number + 1, before.hash):
            self._whole = False
        self._last = place

    def piece(self) -> Chain | None:
        first, last = self._first, self._last
        if first is None or last is None or not self._whole:
            return None
        return Chain(first=first.number, previous=first.previous, last=last.number, hash=last.hash)


class _Check:
    """One file's check."""

    def __init__(self, key: str, is_signed: Callable[[SignedSeal], bool]) -> None:
        self._key = key
        self._is_signed = is_signed
        self._stream = ""
        self._open: _Open | None = None
        self.proven = 0
        self.chain = _Links()

    def line(self, number: int, line: bytes) -> list[Finding]:
        try:
            kind = _line.decode(line)
            if bytes(kind.row):
                return self._event(number, _event.decode(line))
            if bytes(kind.seal):
                return [*self._close(), *self._begin(number, _group.decode(line))]
            self._stream = _title.decode(line).stream
        except (msgspec.MsgspecError, ValueError) as error:
            return [Finding(line=number, what=f"cannot be read: {error}")]
        return []

    def end(self) -> list[Finding]:
        found = self._close()
        if not self._stream:
            found.append(Finding(line=1, what="no line says what this file is"))
        return found

    def _begin(self, line: int, group: Group) -> list[Finding]:
        seal = seal_in(group.seal)
        wrong = ""
        if group.seal.key != self._key:
            wrong = f"the seal of {seal.day} is under another key: {group.seal.key}"
        elif not self._is_signed(group.seal):
            wrong = f"the signature of the seal of {seal.day} is wrong"
        elif seal.stream != self._stream:
            wrong = f"the seal is of another stream: {seal.stream}"
        self._open = _Open(
            line=line, group=group, seal=seal, trusted=not wrong, members={}, events=[]
        )
        return [Finding(line=line, what=wrong)] if wrong else []

    def _event(self, line: int, event: ProvenEvent) -> list[Finding]:
        place, envelope = event.row, event.envelope
        self.chain.add(place)
        try:
            id = read_header(envelope).id
        except Undecodable as error:
            return [Finding(line=line, what=str(error), number=place.number)]
        if self._open is None:
            what = "no seal stands before this event"
        else:
            what = _taken(self._open, self._stream, line, place, envelope, id)
        return [Finding(line=line, what=what, number=place.number, id=id)] if what else []

    def _close(self) -> list[Finding]:
        opened, self._open = self._open, None
        if opened is None:
            return []
        found = _closed(opened)
        if opened.trusted and not found:
            self.proven += len(opened.events)
        return found


def _taken(opened: _Open, stream: str, line: int, place: Place, envelope: bytes, id: str) -> str:
    """What is wrong with an event by itself. Then it counts as what it was, so that the others of its
    group are still proven."""
    index = place.number - opened.seal.first
    if index in opened.members:
        return "stands here twice"
    if place.number not in opened.group.rows:
        return "was put in: its group does not name it"
    opened.members[index] = bytes.fromhex(place.hash)
    if hash_of_event(stream, place, envelope) != opened.members[index]:
        return "was changed"
    if day_of(place.received_at) != opened.seal.day:
        return f"is not of the day of its seal, {opened.seal.day}"
    opened.events.append((line, place.number, id))
    return ""


def _closed(opened: _Open) -> list[Finding]:
    """What is wrong with a group now that all of its events are read."""
    seal, first = opened.seal, opened.seal.first
    gone = [number for number in opened.group.rows if number - first not in opened.members]
    if gone:
        return [Finding(line=opened.line, what="was taken out", number=each) for each in gone]
    hashes = [bytes.fromhex(each) for each in opened.group.proof]
    try:
        root = proven_root(seal.size, opened.members, hashes)
    except Unproven as error:
        return [Finding(line=opened.line, what=f"{error} (seal of {seal.day})")]
    if root.hex() == seal.root:
        return []
    return [
        Finding(line=line, what=f"is not proven by the seal of {seal.day}", number=number, id=id)
        for line, number, id in opened.events
    ]
