"""What is accounted for of a stream: what is new, what was passed by, what fills a hole."""

from __future__ import annotations

from msgspec.structs import replace

from services.inventory.coverage import Gap, holes, placed, without
from services.inventory.model import Arrival, Head, position_of
from tests.fixtures.inventory import LIFE, START, arrivals

HEAD = Head(epoch=0, number=5, position=5, received_at=START)


def told(*sequences: int) -> list[Arrival]:
    """An event of its own at each place."""
    return [
        replace(arrival, sequence=sequence)
        for arrival, sequence in zip(arrivals(*LIFE), sequences, strict=False)
    ]


def test_what_follows_is_new_and_leaves_no_hole() -> None:
    batch = placed(HEAD, told(6, 7), known=set(), gaps=())
    assert (list(batch.new), batch.position, batch.opened, batch.filled) == ([6, 7], 7, [], [])


def test_what_is_passed_by_opens_a_gap() -> None:
    batch = placed(HEAD, told(8, 9, 12), known=set(), gaps=())
    assert batch.opened == [Gap(first=6, last=7), Gap(first=10, last=11)]
    assert batch.position == 12


def test_a_repeat_is_nothing_new_but_accounts_for_its_place() -> None:
    again = told(6)
    batch = placed(HEAD, again, known={again[0].envelope.id}, gaps=())
    assert (batch.new, batch.opened, batch.position) == ({}, [], 6)


def test_one_event_at_two_places_of_a_batch_is_stored_at_the_first() -> None:
    one = told(6)[0]
    batch = placed(HEAD, [one, replace(one, sequence=7)], known=set(), gaps=())
    assert (list(batch.new), batch.opened, batch.position) == ([6], [], 7)


def test_what_comes_late_fills_its_gap() -> None:
    batch = placed(HEAD, told(3), known=set(), gaps=[Gap(first=2, last=4)])
    assert (list(batch.new), batch.filled, batch.position, batch.epoch) == ([3], [3], 5, 0)


def test_an_unknown_event_at_a_place_that_is_taken_begins_the_next_epoch() -> None:
    batch = placed(HEAD, told(2, 7), known=set(), gaps=())
    assert batch.epoch == 1
    assert list(batch.new) == [position_of(1, 2), position_of(1, 7)]
    assert batch.opened == [
        Gap(first=position_of(1, 1), last=position_of(1, 1)),
        Gap(first=position_of(1, 3), last=position_of(1, 6)),
    ]


def test_holes_lie_between_the_places_that_are_there() -> None:
    assert list(holes(0, [1, 2, 4, 9])) == [Gap(first=3, last=3), Gap(first=5, last=8)]
    assert list(holes(9, [3, 9])) == []


def test_a_gap_is_cut_where_it_was_filled() -> None:
    assert without(Gap(first=1, last=9, state="missing"), [2, 3, 9, 40]) == [
        Gap(first=1, last=1, state="missing"),
        Gap(first=2, last=3, state="filled"),
        Gap(first=4, last=8, state="missing"),
        Gap(first=9, last=9, state="filled"),
    ]
