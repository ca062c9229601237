"""Virtual machines by the SDK. A VM is named by its id or its name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

from schemas.forecasts import PlacementReview, PolicyTrial
from schemas.loads import VmLoad
from schemas.metrics import LiveSample, Metrics
from schemas.policies import Policy
from schemas.requests import VmRequest
from schemas.resources import StopMode, Vm, VmSpec, VmState
from schemas.telemetry import VmReading
from vireo import metrics
from vireo.dry_runs import Beginning
from vireo.operations import Wait
from vireo.pages import PageOf, walk
from vireo.paths import checked_ref, labels_query, query_of, time_text
from vireo.transport import Transport

R = TypeVar("R")


class Vms(Generic[R]):
    """Each call that changes something gives back an operation, ended if `wait` says so; those of
    `client.dry_run.vms` change nothing and give back forecasts.

    `key` is the idempotency key: a call with the key of an earlier one gets the answer of that one.
    It is made for every call unless given, so that retries within a call never act twice.
    """

    def __init__(self, transport: Transport, beginning: Beginning[R]) -> None:
        self._transport = transport
        self._beginning = beginning

    async def create(
        self,
        spec: VmSpec | VmRequest | Mapping[str, Any],
        *,
        wait: Wait = False,
        key: str | None = None,
    ) -> R:
        """A mapping is sent as it is: the server names every bad field of it. What a `VmRequest` leaves out
        its template gives."""
        return await self._beginning.begin("POST", "/v1/vms", spec, wait=wait, key=key)

    async def create_many(
        self,
        spec: VmSpec | VmRequest | Mapping[str, Any],
        *,
        count: int | None = None,
        pattern: str | None = None,
        names: Sequence[str] = (),
        gang: bool = False,
        wait: Wait = False,
        key: str | None = None,
    ) -> R:
        """Several VMs of one spec: so many, named by `pattern` (`web-{n}`), or one for each of `names`.
        The operation ends when they are placed; its `members` have operations of their own. Of a `gang`
        all are placed or none."""
        given = {"count": count, "pattern": pattern, "names": tuple(names) or None}
        body: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        body |= {"spec": spec, "gang": gang}
        return await self._beginning.begin("POST", "/v1/vms/batch", body, wait=wait, key=key)

    async def try_policy(
        self,
        policy: str,
        spec: VmSpec | VmRequest | Mapping[str, Any],
        *,
        draft: Policy | None = None,
    ) -> PolicyTrial:
        """How a policy (or a draft of it, in place of what is kept) would place such a VM now, and how
        the policy that counts for it would. Nothing is done."""
        body = {"spec": spec, "draft": draft} if draft is not None else {"spec": spec}
        path = f"/v1/policies/{checked_ref('policy', policy)}/try"
        return await self._transport.ask(path, PolicyTrial, body=body)

    async def get(self, vm: str, *, at: datetime | None = None) -> Vm:
        """As it is, or as it was at a time (by the record's clock)."""
        query = query_of(at=time_text(at))
        return await self._transport.read(_path(vm), Vm, query=query)

    def list(
        self,
        *,
        host: str | None = None,
        state: VmState | None = None,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        at: datetime | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Vm]:
        """Newest first; deleted ones only with `state="deleted"`. With `at`, as they were then."""
        query = query_of(host=host, state=state, name=name, at=time_text(at))
        query += labels_query(labels)
        return walk(self._transport, "/v1/vms", PageOf[Vm], query, limit=limit)

    def loads(
        self, *, host: str | None = None, recent: int = 0, limit: int | None = None
    ) -> AsyncIterator[VmLoad]:
        """How busy each is now, by id; with so many ticks of its CPU before."""
        query = query_of(host=host, recent=recent)
        return walk(self._transport, "/v1/telemetry/vms", PageOf[VmLoad], query, limit=limit)

    async def metrics(
        self,
        vm: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        step_s: float | None = None,
        series: Sequence[str] = (),
    ) -> Metrics:
        """How it was over some time, the last hour by default; the step is chosen unless it is given."""
        path = f"{_path(vm)}/metrics"
        return await metrics.history(
            self._transport, path, since=since, until=until, step_s=step_s, series=series
        )

    def watch(self, vm: str, *, series: Sequence[str] = ()) -> AsyncIterator[LiveSample]:
        """Each sample as it is told, without end."""
        return metrics.watch(self._transport, f"{_path(vm)}/metrics", series=series)

    async def telemetry(self, vm: str) -> VmReading:
        """The newest that is known from outside and from the guest's agent."""
        return await self._transport.read(f"{_path(vm)}/telemetry", VmReading)

    async def placement(
        self, vm: str, *, now: bool = False, at: datetime | None = None
    ) -> PlacementReview:
        """Why it is where it is, as it was decided; with `now`, also how it would be decided now; with
        `at`, why it was where it was."""
        query = query_of(now="true" if now else None, at=time_text(at))
        return await self._transport.read(f"{_path(vm)}/placement", PlacementReview, query=query)

    async def start(self, vm: str, *, wait: Wait = False, key: str | None = None) -> R:
        return await self._beginning.begin("POST", f"{_path(vm)}/start", None, wait=wait, key=key)

    async def stop(
        self,
        vm: str,
        *,
        mode: StopMode = "graceful",
        grace_s: float = 60,
        wait: Wait = False,
        key: str | None = None,
    ) -> R:
        """`graceful` asks the guest and pulls the plug after `grace_s` seconds; `forced` pulls it now."""
        body = {"mode": mode, "grace_s": grace_s}
        return await self._beginning.begin("POST", f"{_path(vm)}/stop", body, wait=wait, key=key)

    async def reboot(
        self,
        vm: str,
        *,
        mode: StopMode = "graceful",
        wait: Wait = False,
        key: str | None = None,
    ) -> R:
        body = {"mode": mode}
        return await self._beginning.begin("POST", f"{_path(vm)}/reboot", body, wait=wait, key=key)

    async def pause(self, vm: str, *, wait: Wait = False, key: str | None = None) -> R:
        return await self._beginning.begin("POST", f"{_path(vm)}/pause", None, wait=wait, key=key)

    async def resume(self, vm: str, *, wait: Wait = False, key: str | None = None) -> R:
        return await self._beginning.begin("POST", f"{_path(vm)}/resume", None, wait=wait, key=key)

    async def delete(
        self,
        vm: str,
        *,
        mode: StopMode = "forced",
        grace_s: float = 60,
        wait: Wait = False,
        key: str | None = None,
    ) -> R:
        """Stop it, forget it, remove its disks. There is no way back."""
        query = query_of(mode=mode, grace_s=grace_s)
        return await self._beginning.begin(
            "DELETE", _path(vm), None, query=query, wait=wait, key=key
        )


def _path(vm: str) -> str:
    return f"/v1/vms/{checked_ref('vm', vm)}"
