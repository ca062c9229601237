"""What an operation caused, as a tree."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from schemas.causes import Effect
from schemas.envelope import Envelope
from services.inventory.effects import OperationFacts, led_to, tree
from tests.fixtures.inventory import CREATE, CREATED, STOP, VM, accepted, at, envelopes


def facts(operation: str, command: str, second: int) -> OperationFacts:
    return OperationFacts(
        id=operation,
        command=command,
        kind="vm",
        target=VM,
        phase="succeeded",
        actor="token/admin",
        created_at=at(second),
    )


CREATION = facts(CREATE, "vm.create", 1)


def caused(envelope: Envelope[Any], cause: str) -> Envelope[Any]:
    return replace(envelope, cause=cause)


def outline(effect: Effect) -> Any:
    """Names and what is under them."""
    if not effect.effects:
        return effect.name
    return {effect.name: [outline(each) for each in effect.effects]}


def test_the_events_of_an_operation_stand_under_it_with_their_times() -> None:
    said = [caused(each, CREATE) for each in envelopes(*CREATED)]
    found = tree(CREATE, {CREATE: CREATION}, said, whole=True)
    assert outline(found.root) == {
        "vm.create": [
            *("operation.accepted", "vm.scheduled", "operation.progressed", "vm.defined"),
            *("vm.started", "operation.progressed", "operation.succeeded"),
        ]
    }
    assert [each.elapsed_ms for each in found.root.effects][:3] == [0, 1000, 2000]
    assert (found.operations, found.events) == (1, 7)


def test_what_an_event_brought_about_stands_under_the_event() -> None:
    first, second, third = envelopes(*CREATED[:3])
    said = [caused(first, CREATE), caused(second, CREATE), caused(third, second.id)]
    found = tree(CREATE, {CREATE: CREATION}, said, whole=True)
    assert outline(found.root) == {
        "vm.create": ["operation.accepted", {"vm.scheduled": ["operation.progressed"]}]
    }


def test_an_operation_that_another_led_to_stands_under_what_caused_it() -> None:
    first, second = (caused(each, CREATE) for each in envelopes(*CREATED[:2]))
    stop = caused(envelopes((STOP, accepted("vm.stop")), first=3)[0], second.id)
    assert led_to([first, second, stop]) == sorted([CREATE, STOP])
    operations = {CREATE: CREATION, STOP: facts(STOP, "vm.stop", 3)}
    found = tree(CREATE, operations, [first, second, stop], whole=True)
    assert outline(found.root) == {
        "vm.create": [
            "operation.accepted",
            {"vm.scheduled": [{"vm.stop": ["operation.accepted"]}]},
        ]
    }


def test_an_event_whose_cause_is_not_known_says_it_under_its_operation() -> None:
    said = [caused(each, STOP) for each in envelopes(*CREATED[2:3])]
    (progressed,) = tree(CREATE, {CREATE: CREATION}, said, whole=True).root.effects
    assert (progressed.name, progressed.cause) == ("operation.progressed", STOP)


def test_causes_that_form_a_ring_end() -> None:
    first, second = envelopes(*CREATED[:2])
    third = envelopes(*CREATED[2:3], first=3)[0]
    ring = [first, caused(second, third.id), caused(third, second.id)]
    found = tree(CREATE, {CREATE: CREATION}, ring, whole=True)
    assert outline(found.root) == {"vm.create": ["operation.accepted"]}
