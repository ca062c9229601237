"""The table of routes: method, path, handler, what goes in and out. Litestar and OpenAPI both read it.

What belongs here: what there is. How it is answered stands in `handlers` and `stream`.
"""

from __future__ import annotations

from typing import Any

from schemas.causes import EffectTree
from schemas.changes import Changed, ListChanges
from schemas.forecasts import Capacity, PlacementReview
from schemas.queries import ListHosts, ListOperations, ListVms
from schemas.requests import VmRequest
from schemas.resources import Host, Operation, Vm
from schemas.telemetry import HostReading, VmReading
from services.gateway import checks, forecasts, handlers, stream
from services.gateway.alert_routes import ALERTS
from services.gateway.audit_routes import AUDIT
from services.gateway.definition_routes import DEFINITIONS
from services.gateway.load_routes import LOADS
from services.gateway.metrics_routes import HOST_METRICS, VM_METRICS
from services.gateway.model import (
    BatchRequest,
    CapacityRequest,
    DeleteRequest,
    EventQuery,
    HostChange,
    Nothing,
    OperationQuery,
    PastQuery,
    RebootRequest,
    ReviewQuery,
    StopRequest,
    WishQuery,
)
from services.gateway.plan_routes import PLANS
from services.gateway.rebuild_routes import REBUILDS
from services.gateway.replay_routes import REPLAYS
from services.gateway.route import Route
from services.gateway.several import batch_errors
from services.gateway.subscription_routes import SUBSCRIPTIONS


def _act(verb: str, summary: str, handler: Any, body: type[Any] = Nothing) -> Route[WishQuery, Any]:
    return Route(
        method="POST",
        path=f"/v1/vms/{{vm}}/{verb}",
        name=f"{verb}_vm",
        summary=summary,
        handler=handler,
        answer=Operation,
        query=WishQuery,
        body=body,
    )


VMS: tuple[Route[Any, Any], ...] = (
    Route(
        method="POST",
        path="/v1/vms",
        name="create_vm",
        summary="Create a VM",
        description="Answers as soon as the wish is safe, or with `wait` when it is done.",
        handler=handlers.create_vm,
        answer=Operation,
        query=WishQuery,
        body=VmRequest,
        check=checks.request_errors,
    ),
    Route(
        method="POST",
        path="/v1/vms/batch",
        name="create_vms",
        summary="Create several VMs of one spec",
        description=(
            "The operation ends when all are placed; each VM has one of its own, named in `members`. "
            "A gang is placed as a whole or not at all."
        ),
        handler=handlers.create_vms,
        answer=Operation,
        query=WishQuery,
        body=BatchRequest,
        check=batch_errors,
    ),
    Route(
        method="GET",
        path="/v1/vms",
        name="list_vms",
        summary="List VMs, newest first",
        handler=handlers.list_vms,
        answer=Vm,
        query=ListVms,
        body=Nothing,
        page=True,
        tagged=True,
    ),
    Route(
        method="GET",
        path="/v1/vms/{vm}",
        name="get_vm",
        summary="Show a VM",
        handler=handlers.get_vm,
        answer=Vm,
        query=PastQuery,
        body=Nothing,
    ),
    Route(
        method="GET",
        path="/v1/vms/{vm}/telemetry",
        name="get_vm_telemetry",
        summary="Show the newest measurements of a VM",
        handler=handlers.get_vm_reading,
        answer=VmReading,
        query=Nothing,
        body=Nothing,
    ),
    VM_METRICS,
    Route(
        method="GET",
        path="/v1/vms/{vm}/placement",
        name="get_vm_placement",
        summary="Show why a VM is where it is",
        description="As recorded when it was placed; with `now`, as it would be decided now, too.",
        handler=forecasts.review_placement,
        answer=PlacementReview,
        query=ReviewQuery,
        body=Nothing,
    ),
    _act("start", "Start a VM", handlers.start_vm),
    _act("stop", "Shut a VM down, or cut its power", handlers.stop_vm, StopRequest),
    _act("reboot", "Reboot a VM once", handlers.reboot_vm, RebootRequest),
    _act("pause", "Pause a VM", handlers.pause_vm),
    _act("resume", "Resume a paused VM", handlers.resume_vm),
    Route(
        method="DELETE",
        path="/v1/vms/{vm}",
        name="delete_vm",
        summary="Stop a VM and remove it with its disks",
        handler=handlers.delete_vm,
        answer=Operation,
        query=DeleteRequest,
        body=Nothing,
    ),
)

HOSTS: tuple[Route[Any, Any], ...] = (
    Route(
        method="GET",
        path="/v1/hosts",
        name="list_hosts",
        summary="List hosts by name",
        handler=handlers.list_hosts,
        answer=Host,
        query=ListHosts,
        body=Nothing,
        page=True,
        tagged=True,
    ),
    Route(
        method="GET",
        path="/v1/hosts/{host}",
        name="get_host",
        summary="Show a host",
        handler=handlers.get_host,
        answer=Host,
        query=PastQuery,
        body=Nothing,
    ),
    Route(
        method="PATCH",
        path="/v1/hosts/{host}",
        name="configure_host",
        summary="Set a host's maintenance, labels, taints or tuning",
        description=(
            "What is left out stays as it is; `labels`, `taints` and `tuning` each replace all that"
            " was set of them before."
        ),
        handler=handlers.configure_host,
        answer=Operation,
        query=WishQuery,
        body=HostChange,
        check=checks.change_errors,
    ),
    Route(
        method="GET",
        path="/v1/hosts/{host}/telemetry",
        name="get_host_telemetry",
        summary="Show the newest measurements of a host",
        handler=handlers.get_host_reading,
        answer=HostReading,
        query=Nothing,
        body=Nothing,
    ),
    HOST_METRICS,
)

OPERATIONS: tuple[Route[Any, Any], ...] = (
    Route(
        method="GET",
        path="/v1/operations",
        name="list_operations",
        summary="List operations, newest first",
        handler=handlers.list_operations,
        answer=Operation,
        query=ListOperations,
        body=Nothing,
        page=True,
    ),
    Route(
        method="GET",
        path="/v1/operations/{operation}",
        name="get_operation",
        summary="Show an operation with its trail, or wait for its end",
        description="With `wait`, answers when the operation has ended or the time is over.",
        handler=handlers.get_operation,
        answer=Operation,
        query=OperationQuery,
        body=Nothing,
    ),
    Route(
        method="GET",
        path="/v1/operations/{operation}/effects",
        name="get_effects",
        summary="Show all that an operation caused, as a tree",
        description="Across the operations that it led to; each event under what brought it about.",
        handler=handlers.get_effects,
        answer=EffectTree,
        query=Nothing,
        body=Nothing,
    ),
)

EVENTS: tuple[Route[Any, Any], ...] = (
    Route(
        method="GET",
        path="/v1/events",
        name="list_events",
        summary="Follow what happens, as server-sent events, or list it",
        description=(
            "A stream by default: `id` is the sequence to resume after (`Last-Event-ID`), `event` the "
            "event's name, `data` the CloudEvent. With `Accept: application/json`, a page of the past."
        ),
        handler=stream.events,
        answer=dict,
        query=EventQuery,
        body=Nothing,
        page=True,
        streams=True,
    ),
)

DIFF: tuple[Route[Any, Any], ...] = (
    Route(
        method="GET",
        path="/v1/diff",
        name="list_changes",
        summary="List what changed between two times, and whose operations had to do with it",
        description="VMs, hosts and definitions. Without `until`: what is other than it was.",
        handler=handlers.list_changes,
        answer=Changed,
        query=ListChanges,
        body=Nothing,
        page=True,
    ),
)

CAPACITY: tuple[Route[Any, Any], ...] = (
    Route(
        method="POST",
        path="/v1/capacity",
        name="count_capacity",
        summary="Count how many more VMs fit, and what stops the next one",
        description="What if: `without` takes hosts away, `add` adds some. Nothing is changed.",
        handler=forecasts.count_capacity,
        answer=Capacity,
        query=Nothing,
        body=CapacityRequest,
        check=checks.capacity_errors,
        asks=True,
    ),
)

ROUTES: tuple[Route[Any, Any], ...] = (
    *VMS,
    *HOSTS,
    *LOADS,
    *ALERTS,
    *DEFINITIONS,
    *CAPACITY,
    *PLANS,
    *OPERATIONS,
    *EVENTS,
    *DIFF,
    *AUDIT,
    *REBUILDS,
    *REPLAYS,
    *SUBSCRIPTIONS,
)
