"""An operation's trail: its events as steps, with the time each took and a word on what it says. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from schemas import events
from schemas.envelope import Envelope
from schemas.resources import OperationStep
from schemas.subjects import BY_TYPE
from services.inventory.columns import in_utc

DETAIL: dict[type[Any], Callable[[Any], str]] = {
    events.OperationAccepted: lambda said: f"{said.command} {said.target}",
    events.OperationProgressed: lambda said: f"{said.step}/{said.of} {said.detail}".rstrip(),
    events.OperationSucceeded: lambda said: said.detail,
    events.OperationFailed: lambda said: said.problem.detail or said.problem.title,
    events.VmScheduled: lambda said: f"on {said.host}, of {said.placement.considered} considered",
    events.VmReassigned: lambda said: (
        f"generation {said.generation}: {'end' if said.ended else said.power}"
    ),
    events.VmStopped: lambda said: f"by {said.reason}",
    events.VmCrashed: lambda said: said.detail,
    events.VmFailed: lambda said: said.detail,
    events.VmDrifted: lambda said: f"found {said.found}, expected {said.expected}",
    events.VmGuestChanged: lambda said: ", ".join(said.guest.addresses),
    events.AlertFired: lambda said: said.alert.summary,
    events.AlertResolved: lambda said: said.alert.summary,
    events.AlertSilenced: lambda said: f"until {said.silence.until:%Y-%m-%d %H:%M:%S}",
    events.HostConfigured: lambda said: f"generation {said.config.generation}",
}
"""What a step says besides its name; nothing where the name says it all."""


def trail(envelopes: Sequence[Envelope[Any]]) -> tuple[OperationStep, ...]:
    """The steps of an operation from its events in the order of the stream, its acceptance first, then
    what was decided: both may be told when the host is on its way already, or done.

    A VM's later life (a crash, a mending) is told under the operation that wished it last, but is no
    step of it: the trail ends with the operation. Times are the senders' own; a sender whose clock is
    behind the gateway's shows 0 ms, never less.
    """
    steps = _until_its_end(sorted(envelopes, key=_place))
    if not steps:
        return ()
    since = in_utc(steps[0].time)
    return tuple(
        OperationStep(
            event=BY_TYPE[each.type].name,
            source=each.source.rsplit("/", 1)[-1],
            at=in_utc(each.time),
            elapsed_ms=max(0.0, round((in_utc(each.time) - since).total_seconds() * 1000, 3)),
            detail=detail_of(each.data),
        )
        for each in steps
    )


PLACES: dict[type[Any], int] = {
    events.OperationAccepted: 0,
    events.VmScheduled: 1,
    events.VmReassigned: 1,
}
"""What comes before everything else in a trail."""


def _place(envelope: Envelope[Any]) -> int:
    return PLACES.get(type(envelope.data), len(PLACES))


def _until_its_end(envelopes: Sequence[Envelope[Any]]) -> Sequence[Envelope[Any]]:
    ends = (number for number, each in enumerate(envelopes, start=1) if isinstance(each.data, ENDS))
    return envelopes[: next(ends, len(envelopes))]


ENDS = (events.OperationSucceeded, events.OperationFailed)


def detail_of(data: Any) -> str:
    say = DETAIL.get(type(data))
    return say(data) if say is not None else ""
