"""The gateway's decisions as values: who asks, whether it was asked before, what it becomes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from schemas import commands, samples
from schemas.envelope import Envelope
from schemas.events import OperationAccepted
from schemas.ids import derived_id, is_uuid7, time_of
from schemas.problems import FieldError
from schemas.queries import GetOperation
from schemas.resources import DiskSpec, HostTuning, NicSpec, Operation, VmSpec
from schemas.rules import Hardware, Taint
from services.gateway import checks, decide
from services.gateway.model import (
    NEXT_STATES,
    Accepted,
    Caller,
    Claim,
    HostChange,
    IdempotencyRecord,
    IdempotencyState,
    Nothing,
    Refusal,
    Replay,
    StopRequest,
    TokenRecord,
    Wish,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TOKEN = decide.token_from(bytes(range(32)))
RECORD = TokenRecord(name="ci", hash=decide.token_hash(TOKEN), created_at=NOW, role="admin")
TOKENS = {RECORD.hash: RECORD}
CALLER = Caller(token="ci", role="admin")
WISH = Wish(fingerprint="a" * 64, caller=CALLER, key="k")
FRESH = samples.OPERATION


def record(state: IdempotencyState, *, age_s: float = 0, answer: bytes = b"") -> IdempotencyRecord:
    return IdempotencyRecord(
        fingerprint=WISH.fingerprint,
        command=samples.VM,
        target="h1",
        state=state,
        since=NOW - timedelta(seconds=age_s),
        answer=answer.decode(),
    )


def claimed(found: IdempotencyRecord | None, wish: Wish = WISH) -> object:
    return decide.claim(found, 7, wish, now=NOW, takeover_s=30, fresh=FRESH)


# who asks


def test_a_token_is_vireo_and_32_bytes_in_base64url() -> None:
    assert TOKEN == "vireo_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    assert decide.is_token(TOKEN)


@pytest.mark.parametrize("header", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER   {TOKEN}"])
def test_a_good_token_names_its_owner(header: str) -> None:
    assert decide.authenticate(header, TOKENS) == CALLER


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", "Bearer", "Bearer ", TOKEN, f"Basic {TOKEN}", "Bearer vireo_short"),
        *(f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}_", f"Bearer {RECORD.hash}"),
    ],
)
def test_anything_else_is_refused_without_repeating_it(header: str | None) -> None:
    found = decide.authenticate(header, TOKENS)
    assert isinstance(found, Refusal)
    assert found.problem.status == 401
    assert TOKEN[:20] not in found.problem.detail


@pytest.mark.parametrize("token", ["wrong", f"{TOKEN}x", TOKEN[::-1]])
def test_a_wrong_token_is_called_that_whatever_it_looks_like(token: str) -> None:
    found = decide.authenticate(f"Bearer {token}", TOKENS)
    assert isinstance(found, Refusal)
    assert found.problem.detail == "This token is not known, or no longer."


def test_the_clients_request_id_is_kept_where_it_is_harmless() -> None:
    assert decide.request_id("build-42.a_b", "fresh") == "build-42.a_b"
    assert decide.request_id("a b", "fresh") == "fresh"
    assert decide.request_id("x" * 101, "fresh") == "fresh"
    assert decide.request_id(None, "fresh") == "fresh"


# has it been asked before?


def test_a_new_key_is_claimed_with_a_fresh_command() -> None:
    assert claimed(None) == Claim(command=FRESH, revision=7)


def test_a_finished_request_is_replayed() -> None:
    assert claimed(record("done", answer=b'{"id":1}')) == Replay(
        operation=samples.VM, answer=b'{"id":1}'
    )


@pytest.mark.parametrize("state", sorted(NEXT_STATES))
def test_a_key_used_for_another_request_is_refused_in_every_state(state: IdempotencyState) -> None:
    other = msgspec.structs.replace(WISH, fingerprint="b" * 64)
    found = claimed(record(state, age_s=1000, answer=b"{}"), other)
    assert isinstance(found, Refusal)
    assert (found.problem.status, found.problem.type) == (
        422,
        "urn:vireo:problem:idempotency-key-reused",
    )


def test_a_request_in_flight_is_refused_with_a_time_to_come_again() -> None:
    found = claimed(record("in_flight", age_s=29))
    assert isinstance(found, Refusal)
    assert (found.problem.status, found.retry_after_s) == (409, 1)


@pytest.mark.parametrize(("state", "age_s"), [("in_flight", 30), ("interrupted", 0)])
def test_a_request_that_came_to_nothing_is_taken_over_with_its_command_and_target(
    state: IdempotencyState, age_s: float
) -> None:
    assert claimed(record(state, age_s=age_s)) == Claim(command=samples.VM, revision=7, target="h1")


def test_a_record_moves_only_as_its_table_says() -> None:
    moved = decide.moved(record("in_flight", age_s=5), "done", now=NOW, answer=b"{}")
    assert (moved.state, moved.since, moved.answer) == ("done", NOW, "{}")
    with pytest.raises(ValueError, match="from done to in_flight"):
        decide.moved(record("done"), "in_flight", now=NOW)


def test_a_fingerprint_is_of_what_is_asked_not_of_how_it_is_spelled() -> None:
    def of(path: str, body: StopRequest) -> str:
        return decide.fingerprint("POST", path, query=Nothing(), body=body)

    assert of("/v1/vms/a/stop", StopRequest()) == of("/v1/vms/a/stop", StopRequest(grace_s=60))
    assert of("/v1/vms/a/stop", StopRequest()) != of("/v1/vms/b/stop", StopRequest())
    assert of("/v1/vms/a/stop", StopRequest()) != of("/v1/vms/a/stop", StopRequest(mode="forced"))


def test_keys_of_two_tokens_are_apart() -> None:
    assert decide.record_key("a", "k") != decide.record_key("b", "k")
    assert decide.record_key("a", "bk") != decide.record_key("ab", "k")


def test_a_key_is_visible_ascii_of_bounded_length() -> None:
    assert decide.key_error("a" * 255) is None
    assert decide.key_error(None) is None
    for bad in ("", "a b", "a" * 256, "ä"):
        assert decide.key_error(bad) == FieldError(
            field="header/Idempotency-Key", detail="expected 1 to 255 visible ASCII characters"
        )


# what it becomes


def test_a_wish_becomes_a_command_an_event_and_an_answer_of_one_id() -> None:
    at = time_of(FRESH)
    message = commands.StartVm(vm=samples.VM)
    found = decide.accept(
        message, command=FRESH, site="main", caller=CALLER, traceparent=samples.TRACEPARENT
    )
    assert found == Accepted(
        command=Envelope(
            specversion="1.0",
            id=FRESH,
            source="/vireo/main/gateway",
            type="vireo.vm.start.v1",
            time=at,
            data=message,
            subject=f"vm/{samples.VM}",
            operation=FRESH,
            actor="token/ci",
            traceparent=samples.TRACEPARENT,
        ),
        event=Envelope(
            specversion="1.0",
            id=derived_id(FRESH, "operation.accepted"),
            source="/vireo/main/gateway",
            type="vireo.operation.accepted.v1",
            time=at,
            data=OperationAccepted(
                command="vm.start", kind="vm", target=samples.VM, request={"vm": samples.VM}
            ),
            subject=f"operation/{FRESH}",
            operation=FRESH,
            cause=FRESH,
            actor="token/ci",
            traceparent=samples.TRACEPARENT,
        ),
        answer=Operation(
            id=FRESH,
            command="vm.start",
            kind="vm",
            target=samples.VM,
            phase="accepted",
            actor="token/ci",
            created_at=at,
            updated_at=at,
        ),
    )


def test_a_wish_about_a_host_is_about_its_name() -> None:
    found = decide.accept(
        commands.ConfigureHost(host="h1", maintenance=True),
        command=FRESH,
        site="main",
        caller=CALLER,
        traceparent=None,
    )
    assert (found.command.subject, found.answer.kind, found.answer.target) == (
        "host/h1",
        "host",
        "h1",
    )


def test_a_repeated_create_makes_the_same_vm() -> None:
    assert decide.vm_of(FRESH) == decide.vm_of(FRESH)
    assert is_uuid7(decide.vm_of(FRESH))
    assert decide.vm_of(FRESH) != FRESH


def test_what_does_not_fit_together_in_a_spec_is_named() -> None:
    mac = "52:54:00:00:00:01"
    spec = VmSpec(
        name="web",
        disks=(DiskSpec(image="tiny"), DiskSpec(), DiskSpec(name="data", size_gib=1)),
        nics=(NicSpec(mac=mac), NicSpec(), NicSpec(), NicSpec(mac=mac)),
    )
    assert list(checks.spec_errors(spec)) == [
        FieldError(
            field="/disks/1/size_gib",
            detail="a disk without an image is blank and needs a size of at least 1 GiB",
        ),
        FieldError(field="/disks/1/name", detail="root is used twice"),
        FieldError(field="/nics/3/mac", detail=f"{mac} is used twice"),
    ]


def test_a_change_of_nothing_is_a_mistake() -> None:
    assert [error.field for error in checks.change_errors(HostChange())] == [""]
    assert not list(checks.change_errors(HostChange(labels={})))
    assert not list(checks.change_errors(HostChange(taints=())))
    assert not list(checks.change_errors(HostChange(tuning=HostTuning())))


def test_what_does_not_fit_together_in_a_change_of_a_host_is_named() -> None:
    taint = Taint(key="gpu", value="a100")
    change = HostChange(
        taints=(taint, Taint(key="gpu", value="a100", effect="avoid"), taint),
        tuning=HostTuning(idle_watts=200, full_watts=100),
    )

    assert list(checks.change_errors(change)) == [
        FieldError(field="/taints/2", detail="gpu=a100:refuse is used twice"),
        FieldError(
            field="/tuning/full_watts",
            detail="a host that is full cannot draw less than an idle one",
        ),
    ]


def test_memory_of_huge_pages_is_a_whole_number_of_them() -> None:
    def errors(memory_mib: int) -> list[str]:
        spec = VmSpec(
            name="db",
            memory_mib=memory_mib,
            disks=(DiskSpec(image="tiny"),),
            hardware=Hardware(huge_page_kib=1048576),
        )
        return [error.field for error in checks.spec_errors(spec)]

    assert (errors(2048), errors(1536)) == ([], ["/memory_mib"])


# reading


def test_a_young_operation_is_waited_for_until_it_exists() -> None:
    young, old = time_of(FRESH) + timedelta(seconds=9), time_of(FRESH) + timedelta(seconds=11)

    def asked(wait_s: float | None, now: datetime) -> GetOperation:
        return decide.operation_query(FRESH, wait_s, now=now, fresh_s=10, fresh_wait_s=2)

    assert asked(None, young) == GetOperation(operation=FRESH, wait_s=2, until="exists")
    assert asked(None, old) == GetOperation(operation=FRESH, wait_s=0, until="exists")
    assert asked(30, old) == GetOperation(operation=FRESH, wait_s=30, until="ended")
