"""Which places in the stream are accounted for: what is new, and what was passed by. Pure.

Every place up to the furthest is accounted for: stored, or the repeat of what is stored, or in a gap.
So an event at a place that is none of these comes from a stream that was lost and made anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from typing import Literal

from msgspec import Struct

from services.inventory.model import Arrival, Head, position_of

GapState = Literal["open", "filled", "missing", "unreadable"]


class Gap(Struct, frozen=True, kw_only=True):
    """Places from `first` to `last` that were passed by."""

    first: int
    last: int
    state: GapState = "open"


class Placed(Struct, frozen=True, kw_only=True):
    """A batch, held against what is stored already."""

    epoch: int
    position: int
    """The furthest place that is accounted for now."""
    new: dict[int, Arrival]
    """What is to be stored, by position, in order."""
    opened: list[Gap]
    filled: list[int]
    """Places that were in a gap."""


def placed(
    head: Head, arrivals: Sequence[Arrival], *, known: Set[str], gaps: Sequence[Gap]
) -> Placed:
    """Where the events of a batch (sorted by sequence) belong. `known`: ids that are stored already;
    `gaps`: those not filled that lie where the batch does."""
    unknown = _unknown(arrivals, known)
    epoch, newest = head.epoch, head.position
    if any(_is_stranger(position_of(epoch, each.sequence), newest, gaps) for each in unknown):
        epoch, gaps = epoch + 1, ()
        newest = position_of(epoch, 0)
    places = [position_of(epoch, each.sequence) for each in arrivals]
    return Placed(
        epoch=epoch,
        position=max([newest, *places]),
        new={position_of(epoch, each.sequence): each for each in unknown},
        opened=list(holes(newest, places)),
        filled=sorted({place for place in places if place <= newest and _within(place, gaps)}),
    )


def _unknown(arrivals: Sequence[Arrival], known: Set[str]) -> list[Arrival]:
    """The first of each id that is not stored."""
    first: dict[str, Arrival] = {}
    for each in arrivals:
        if each.envelope.id not in known:
            first.setdefault(each.envelope.id, each)
    return list(first.values())


def _is_stranger(place: int, newest: int, gaps: Sequence[Gap]) -> bool:
    return place <= newest and not _within(place, gaps)


def _within(place: int, gaps: Iterable[Gap]) -> bool:
    return any(gap.first <= place <= gap.last for gap in gaps)


def holes(newest: int, places: Sequence[int]) -> Iterator[Gap]:
    """What is passed by on the way from `newest` over `places` (sorted)."""
    for place in places:
        if place > newest + 1:
            yield Gap(first=newest + 1, last=place - 1)
        newest = max(newest, place)


def without(gap: Gap, places: Sequence[int]) -> list[Gap]:
    """A gap cut into what is filled by `places` (sorted) and what is left of it."""
    pieces: list[Gap] = []
    start = gap.first
    for place in places:
        if not gap.first <= place <= gap.last:
            continue
        if place > start:
            pieces.append(Gap(first=start, last=place - 1, state=gap.state))
        if pieces and pieces[-1].state == "filled" and pieces[-1].last == place - 1:
            pieces[-1] = Gap(first=pieces[-1].first, last=place, state="filled")
        else:
            pieces.append(Gap(first=place, last=place, state="filled"))
        start = place + 1
    if start <= gap.last:
        pieces.append(Gap(first=start, last=gap.last, state=gap.state))
    return pieces
