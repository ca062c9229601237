"""Which events a stream sends, and how each looks on it. Pure.

As much of the filter as subjects can tell is left to the bus (`patterns`), the rest is looked at here.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from chassis.bus import Incoming, Start
from schemas import subjects
from schemas.envelope import Header
from schemas.subjects import BY_TYPE
from schemas.wire import Undecodable, read_header
from services.gateway.model import EventFilter

KEEPALIVE = b": still here\n\n"

_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")


class _About(Struct, frozen=True):
    """As much of an event's data as tells what it is about."""

    vm: str = ""
    host: str = ""
    target: str = ""


_about = msgspec.json.Decoder(_About)


def patterns(wanted: EventFilter) -> tuple[str, ...]:
    """The subjects to follow."""
    site = wanted.site or "*"
    if not wanted.types:
        return (subjects.event_pattern(site=site),)
    kinds = (name.split(".") for name in wanted.types)
    return tuple(
        sorted({subjects.event_pattern(site=site, kind=kind, event=event) for kind, event in kinds})
    )


def start_after(sequence: int | None, newest: int) -> Start:
    """Where a stream begins: with what is newer than the newest, or after what the client saw last.

    By sequence in both cases, so that nothing is lost between the answer and the following.

    A client that saw more than there is looks at a bus that was made anew: all there is, is new to it.
    """
    if sequence is None:
        return Start(at="sequence", sequence=newest + 1)
    if sequence > newest:
        return Start(at="all")
    return Start(at="sequence", sequence=sequence + 1)


def hello(start: Start) -> bytes:
    """The beginning of a stream. It has an id but no data: no event, yet a client whose connection
    breaks before the first one resumes here, without a gap."""
    seen = start.sequence - 1 if start.at == "sequence" else 0
    return f": events of Vireo\nretry: 2000\nid: {seen}\n\n".encode()


def frame(message: Incoming, wanted: EventFilter) -> bytes | None:
    """An event as server-sent event, or None if it isn't wanted (or is none at all)."""
    try:
        header = read_header(message.data)
        if not matches(header, wanted):
            return None
    except (Undecodable, msgspec.MsgspecError):
        return None
    data = message.data.translate(_LINE_ENDS)
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (message.sequence, name_of(header).encode(), data)


def frame_of_any(message: Incoming, wanted: EventFilter) -> bytes | None:
    """The same of an event that no subject has chosen."""
    try:
        header = read_header(message.data)
    except Undecodable:
        return None
    return frame(message, wanted) if _is_followed(header, wanted) else None


def _is_followed(header: Header, wanted: EventFilter) -> bool:
    """Whether it would come by one of the `patterns`."""
    kind, _, event = header.type.removeprefix("vireo.").rpartition(".")[0].partition(".")
    if wanted.site is not None and header.source.split("/")[2:3] != [wanted.site]:
        return False
    return not wanted.types or not {f"{kind}.{event}", f"{kind}.*"}.isdisjoint(wanted.types)


def matches(header: Header, wanted: EventFilter) -> bool:
    """Whether all that the filter asks for holds, the types apart. Raises MsgspecError."""
    if wanted.operation is not None and header.operation != wanted.operation:
        return False
    if wanted.actor is not None and header.actor != wanted.actor:
        return False
    if wanted.vm is None and wanted.host is None:
        return True
    about = _about.decode(header.data)
    if wanted.vm is not None and wanted.vm not in (about.vm, about.target):
        return False
    source = header.source.rpartition("/")[2]
    named = (about.host, about.target, source, (header.subject or "").removeprefix("host/"))
    return wanted.host is None or wanted.host in named


def name_of(header: Header) -> str:
    """`vm.started`: the event's name, as in an operation's trail."""
    channel = BY_TYPE.get(header.type)
    name = channel.name if channel is not None else header.type
    return " ".join(name.split())
