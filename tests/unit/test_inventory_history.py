"""What is remembered of a batch of events."""

from __future__ import annotations

from msgspec.structs import replace

from services.inventory.changes import differences, kind_of_change
from services.inventory.decide import fact, project_all
from services.inventory.history import Turns, turns
from services.inventory.model import Tables, position_of
from tests.fixtures.inventory import CREATE, CREATED, DELETE, LIFE, STOP, VM, Told, envelopes


def tables(*told: Told) -> Tables:
    said = enumerate(envelopes(*told), start=1)
    return project_all(Tables(), [fact(each, position_of(0, number)) for number, each in said])


def test_a_new_vm_is_born_with_its_documents_and_its_operation_is_placed() -> None:
    assert turns(Tables(), tables(*CREATED)) == Turns(
        vms=(VM,),
        documents=(VM,),
        born=(VM,),
        operations=(CREATE,),
        begun=(CREATE,),
        placed=(CREATE,),
    )


def test_a_vm_of_which_nothing_is_to_be_seen_yet_is_not_remembered() -> None:
    found = turns(Tables(), tables(*CREATED[2:5]))
    assert (found.vms, found.born) == ((), ())
    assert found.operations == (CREATE,)


def test_what_did_not_change_of_a_vm_is_not_kept_again() -> None:
    before, after = tables(*CREATED), tables(*LIFE[:11])
    found = turns(before, after)
    assert (found.vms, found.documents, found.born, found.died) == ((VM,), (), (), ())
    assert found.begun == (STOP,)


def test_a_vm_dies_once() -> None:
    before, after = tables(*LIFE[:11]), tables(*LIFE)
    assert turns(before, after).died == (VM,)
    assert turns(after, after).died == ()
    assert DELETE in turns(before, after).begun


def test_a_life_that_began_and_ended_in_one_batch_is_both() -> None:
    found = turns(Tables(), tables(*LIFE))
    assert (found.born, found.died) == ((VM,), (VM,))


def test_another_guest_is_another_document() -> None:
    before = tables(*CREATED)
    after = replace(before, vms={VM: replace(before.vms[VM], guest='{"hostname":"x"}')})
    assert turns(before, after).documents == (VM,)


def test_differences_are_told_field_by_field_and_lists_as_a_whole() -> None:
    before = {"id": "1", "state": "running", "spec": {"cpus": 1, "disks": [1]}, "updated_at": 1}
    after = {"id": "1", "state": "running", "spec": {"cpus": 2, "disks": [1, 2]}, "updated_at": 2}
    assert [(each.field, each.before, each.after) for each in differences(before, after)] == [
        ("spec/cpus", 1, 2),
        ("spec/disks", [1], [1, 2]),
    ]


def test_what_was_there_neither_before_nor_after_was_passing() -> None:
    assert kind_of_change(None, None) == "passing"
    assert kind_of_change(None, {}) == "created"
    assert kind_of_change({}, None) == "deleted"
