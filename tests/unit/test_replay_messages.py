"""What a replay publishes: the original under a subject and an id of its own, when it is due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas import events, samples
from schemas.ids import derived_id
from schemas.seals import anchor_in
from schemas.subjects import BY_MESSAGE, event, replayed
from schemas.wire import encode, read_header
from services.inventory.recorded import Recorded, Stretch
from services.inventory.replay_messages import again, due_s, fitting, foretold, reached, step_of
from vireo.standalone.permissions import of_service

OPERATION = derived_id(samples.OPERATION, "replay")
FIRST = datetime(2026, 3, 1, tzinfo=UTC)


def recorded(number: int, envelope: bytes) -> Recorded:
    return Recorded(
        number=number,
        position=number,
        received_at=FIRST,
        operation=None,
        vm=None,
        host=None,
        envelope=envelope,
    )


@pytest.mark.parametrize(
    "message",
    [one for one in samples.MESSAGES if BY_MESSAGE[type(one)].stream == "EVENTS"],
    ids=lambda one: BY_MESSAGE[type(one)].name,
)
def test_every_event_has_a_place_under_the_replays_name(message: Any) -> None:
    row = recorded(1, encode(samples.enveloped(message)))
    header = read_header(row.envelope)
    published = again(row, header, name="friday", operation=OPERATION)
    assert published.subject.startswith("vireo.replay.friday.")
    assert published.subject.count(".") == 7
    assert published.data == row.envelope
    assert published.headers["Vireo-Replay-Of"] == header.id
    assert published.message_id != header.id


def test_the_rest_of_the_subject_is_the_originals() -> None:
    original = event(events.VmStarted, site="main", source="h1", id=samples.VM)
    made = replayed("friday", site="main", source="h1", kind="vm", id=samples.VM, event="started")
    assert made == original.replace("vireo.evt.", "vireo.replay.friday.")


@pytest.mark.parametrize("name", ["", "a.b", "*", ">", "friday.>", "Friday"])
def test_no_name_leads_anywhere_else(name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        replayed(name, site="main", source="h1", kind="vm", id=samples.VM, event="started")


def test_only_the_inventory_may_publish_replays_and_events_only_under_its_own_name() -> None:
    may = {
        service: of_service(service, user=service).publish
        for service in ("gateway", "scheduler", "inventory", "metrics")
    }
    assert {name for name, subjects in may.items() if "vireo.replay.>" in subjects} == {"inventory"}
    told = [subject for subject in may["inventory"] if subject.startswith("vireo.evt.")]
    assert told == ["vireo.evt.*.inventory.>"]


def test_an_event_is_due_as_long_after_the_first_as_it_was_or_sooner() -> None:
    later = FIRST + timedelta(seconds=30)
    assert due_s(later, first=FIRST, speed=1) == 30
    assert due_s(later, first=FIRST, speed=10) == 3
    assert due_s(later, first=FIRST, speed=0) == 0
    assert due_s(FIRST, first=later, speed=1) == 0


def test_steps_count_from_where_it_began() -> None:
    assert step_of(150, begin=100, last=200) == 10
    assert step_of(200, begin=100, last=200) == 20
    assert step_of(5, begin=5, last=5) == 20


def test_events_go_together_up_to_a_size_and_one_that_is_larger_goes_alone() -> None:
    found = [recorded(number, bytes(size)) for number, size in enumerate((9, 4, 4, 4), start=1)]
    assert fitting(found, most_bytes=8) == found[:1]
    assert fitting(found[1:], most_bytes=8) == found[1:3]
    assert fitting([], most_bytes=8) == []


def test_nothing_is_left_up_to_where_was_read_only_if_all_that_was_found_is_published() -> None:
    found = [recorded(number, b"") for number in (14, 17)]
    stretch = Stretch(events=found, through=20, more=True)
    assert [reached(10, stretch, published) for published in range(3)] == [10, 14, 20]
    assert reached(10, Stretch(events=[], through=20, more=True), 0) == 20


def test_a_forecast_counts_what_the_database_has_and_names_what_is_in_files() -> None:
    assert foretold("friday", 3, []) == "3 events to vireo.replay.friday.>"
    assert foretold("friday", 3, [anchor_in(samples.ANCHOR)]) == (
        "3 events, and what is asked for of 4096 rows in events-2024-11.jsonl.gz,"
        " to vireo.replay.friday.>"
    )
