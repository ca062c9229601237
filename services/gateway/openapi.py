"""The OpenAPI 3.1 document, made from the table of routes and the schemas. Pure.

msgspec writes JSON Schema 2020-12, which is what OpenAPI 3.1 takes, so types are said once, in
`schemas` and `model`; examples are the samples of `schemas.samples`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, get_args, get_type_hints

import msgspec
from msgspec import Struct

from schemas import samples
from schemas.alerts import Alert, AlertRule, RuleTrial, Silence
from schemas.audit import LedgerCheck, LedgerGap, LedgerProof, LedgerState
from schemas.causes import EffectTree
from schemas.changes import Changed
from schemas.definitions import Definition, Project, ProjectUse, Template
from schemas.events import VmReassigned
from schemas.forecasts import Capacity, Forecast, MoreHosts, PlacementReview, PolicyTrial
from schemas.loads import HostLoad, VmLoad
from schemas.metrics import Metrics
from schemas.plans import Plan, PlanBalance, PlanCheck, PlanDrain
from schemas.policies import Policy
from schemas.problems import Problem
from schemas.proofs import ProvenEvent
from schemas.requests import VmRequest
from schemas.resources import Host, Operation, Vm
from schemas.seals import SignedSeal
from schemas.subscriptions import (
    SettledEvents,
    SettleEvents,
    Subscription,
    SubscriptionState,
    TakeEvents,
    TakenEvents,
)
from schemas.telemetry import HostReading, VmReading
from services.gateway.answers import JSON, PROBLEM_JSON, of_status
from services.gateway.metrics_routes import sample_frame
from services.gateway.model import (
    BatchRequest,
    CapacityRequest,
    HostChange,
    Nothing,
    RebootRequest,
    RebuildRequest,
    ReplayRequest,
    SilenceRequest,
    StopRequest,
    SubscriptionRequest,
    TrialRequest,
)
from services.gateway.route import Route
from services.gateway.routes import ROUTES
from services.gateway.validation import QUERY_NAMES

VERSION = "1"
_REF = "#/components/schemas/{name}"
_EVENT = samples.enveloped(next(m for m in samples.MESSAGES if isinstance(m, VmReassigned)))

_RESOURCE_EXAMPLES: dict[type[Any], Any] = {
    Vm: samples.VM_SAMPLE,
    Host: samples.HOST_RESOURCE,
    Operation: samples.OPERATION_SAMPLE,
    VmReading: samples.VM_READING,
    HostReading: samples.HOST_READING,
    Metrics: samples.METRICS,
    HostLoad: samples.HOST_LOAD,
    VmLoad: samples.VM_LOAD,
    PlacementReview: samples.REVIEW,
    Capacity: samples.CAPACITY,
    PolicyTrial: samples.TRIAL,
    Plan: samples.PLAN,
    PlanCheck: samples.PLAN_CHECK,
    Definition[Policy]: samples.kept(samples.POLICY),
    Definition[Template]: samples.kept(samples.TEMPLATE),
    Definition[Project]: samples.kept(samples.PROJECT),
    ProjectUse: samples.PROJECT_USE,
    Definition[AlertRule]: samples.kept(samples.ALERT_RULE),
    LedgerState: samples.LEDGER_STATE,
    LedgerGap: samples.LEDGER_GAP,
    LedgerProof: samples.LEDGER_PROOF,
    LedgerCheck: samples.LEDGER_CHECK,
    ProvenEvent: samples.PROVEN_EVENT,
    SignedSeal: samples.SEAL,
    Alert: samples.ALERT,
    RuleTrial: samples.RULE_TRIAL,
    Silence: samples.SILENCE,
    EffectTree: samples.EFFECTS,
    Changed: samples.CHANGED,
    dict: _EVENT,
    Subscription: Subscription(name="pager", types=("vm.crashed", "host.*"), lease_s=60),
    SubscriptionState: SubscriptionState(name="pager", waiting=3),
    TakenEvents: samples.TAKEN,
    SettledEvents: SettledEvents(settled=1),
}
_BODY_EXAMPLES: dict[type[Any], Any] = {
    VmRequest: samples.REQUEST,
    Policy: samples.POLICY,
    Template: samples.TEMPLATE,
    Project: samples.PROJECT,
    AlertRule: samples.ALERT_RULE,
    BatchRequest: BatchRequest(spec=samples.REQUEST, count=3, pattern="web-{n}", gang=True),
    StopRequest: StopRequest(mode="graceful", grace_s=30),
    RebootRequest: RebootRequest(),
    SilenceRequest: SilenceRequest(rule=samples.ALERT.rule, for_s=7200, reason="maintenance"),
    HostChange: {
        "maintenance": True,
        "taints": [{"key": "gpu", "effect": "refuse"}],
        "tuning": {"cpu_overcommit": 2.0, "reserve_memory_mib": 2048, "weight": 5.0},
    },
    ReplayRequest: ReplayRequest(
        name="friday", since=samples.AT, until=samples.AT.replace(hour=10), speed=100
    ),
    RebuildRequest: RebuildRequest(compare_only=True),
    SubscriptionRequest: SubscriptionRequest(types=("vm.crashed", "host.*"), lease_s=60),
    TakeEvents: TakeEvents(limit=10, wait_s=20),
    SettleEvents: SettleEvents(done=(samples.RECEIPT,)),
    PlanBalance: PlanBalance(start=0.1, stop=0.05, max_moves=20),
    PlanDrain: PlanDrain(host=samples.HOST),
    Plan: samples.PLAN,
    TrialRequest: TrialRequest(spec=samples.REQUEST, draft=samples.POLICY),
    CapacityRequest: CapacityRequest(
        spec=samples.REQUEST, by="rack", without=("h4",), add=(MoreHosts(count=3, like="h2"),)
    ),
}
_TAG = '"0b5e4f0e-9c1d-4a57-8b4e-2f6f6a3c1d77"'
_PATH_PARAMETERS = {
    "vm": ("Id or name of the VM", "web-1"),
    "host": ("Name of the host", samples.HOST),
    "operation": ("Id of the operation", samples.OPERATION),
    "name": ("Its name", "quiet"),
    "day": ("The day in UTC", "2024-12-06"),
    "rule": ("Name of the rule", samples.ALERT.rule),
}
_QUERY_EXAMPLES: dict[str, Any] = {
    "limit": 50,
    "label": ["tier=web"],
    "host": samples.HOST,
    "vm": "web-1",
    "operation": samples.OPERATION,
    "wait": "30s",
    "type": ["vm.started"],
    "rows": "4117",
    "actor": "token/admin",
    "at": "2024-12-07T09:30:00Z",
    "since": "2024-12-07T09:30:00Z",
    "from": "24h",
    "step": "5m",
    "series": ["cpu_busy"],
}
_PROBLEMS: dict[int, str] = {
    400: "The request is not valid; `errors` names every bad field",
    401: "The token is missing or not known",
    404: "There is no such thing",
    409: "A request with this Idempotency-Key is being worked on; or a plan does not hold any more",
    413: "The body is too large",
    415: "The body is of a kind that is not taken here",
    422: "The Idempotency-Key was used for another request, or a name in the request is not known",
    429: "Too many requests wait, or too many streams are open; `Retry-After` says when to come again",
    503: "A part of the system is away; `Retry-After` says when to come again",
}


TAGS = (
    *("vms", "hosts", "policies", "templates", "projects", "capacity", "plans"),
    *(
        "telemetry",
        "alerts",
        "operations",
        "events",
        "diff",
        "ledger",
        "inventory",
        "fleet",
        "replays",
        "subscriptions",
        "health",
    ),
)


def document_bytes() -> bytes:
    return msgspec.json.encode(document(), order="deterministic")


def document() -> dict[str, Any]:
    """The whole document as plain data."""
    paths: dict[str, Any] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    paths.update(_plain_paths())
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Vireo",
            "version": VERSION,
            "description": "Virtual machines on many hosts. Slow work answers 202 with an operation.",
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "tags": [{"name": tag} for tag in TAGS],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "vireo_ and 43 characters",
                }
            },
            "responses": {str(status): _problem(status) for status in _PROBLEMS},
        },
    }


def _operation(route: Route[Any, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": [*_path_parameters(route), *_query_parameters(route), *_headers(route)],
        "responses": {
            **_successes(route),
            **{str(s): {"$ref": f"#/components/responses/{s}"} for s in _statuses(route)},
        },
    }
    if route.description:
        found["description"] = route.description
    if route.body is not Nothing:
        found["requestBody"] = {
            "required": any(field.required for field in msgspec.structs.fields(route.body)),
            "content": _body(route),
        }
    return found


def _body(route: Route[Any, Any]) -> dict[str, Any]:
    content = _content(_ref(route.body), _BODY_EXAMPLES[route.body])
    return {**content, "application/yaml": content[JSON]} if route.yaml else content


def _path_parameters(route: Route[Any, Any]) -> Iterable[dict[str, Any]]:
    for name in route.parameters:
        text, example = _PATH_PARAMETERS[name]
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "description": text,
            "schema": {"type": "string"},
            "example": example,
        }


def _query_parameters(route: Route[Any, Any]) -> Iterable[dict[str, Any]]:
    hints = get_type_hints(route.query, include_extras=True)
    for field in msgspec.structs.fields(route.query):
        name = QUERY_NAMES.get(field.name, field.name)
        schema = msgspec.json.schema(hints[field.name])
        if field.name == "labels":  # a table, given as key=value, once per entry
            schema = {"type": "array", "items": {"type": "string"}}
        parameter = {"name": name, "in": "query", "required": field.required, "schema": schema}
        if name in _QUERY_EXAMPLES:
            parameter["example"] = _QUERY_EXAMPLES[name]
        yield parameter


def _headers(route: Route[Any, Any]) -> Iterable[dict[str, Any]]:
    if route.writes:
        yield {
            "name": "Idempotency-Key",
            "in": "header",
            "description": "The same key and request get the same answer, and one command, for a day",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            "example": "create-web-1",
        }
    if route.tagged:
        yield {
            "name": "If-None-Match",
            "in": "header",
            "description": "The `ETag` of an answer that is known: if it is still true, 304 says so",
            "schema": {"type": "string"},
            "example": _TAG,
        }
    if route.streams:
        yield {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "Go on after this event",
            "schema": {"type": "string", "pattern": r"^\d+$"},
            "example": "4711",
        }


def _statuses(route: Route[Any, Any]) -> Iterable[int]:
    yield from (400, 401)
    if route.parameters or route.tag == "events":
        yield 404
    if route.writes:
        yield from (409, 413, 415, 422)
    if route.asks:
        yield from (404, 413, 415)
    if route.name == "check_plan":
        yield 409
    if route.writes or route.streams or route.name == "get_operation":
        yield 429
    yield 503


def _successes(route: Route[Any, Any]) -> dict[str, Any]:
    if route.writes:
        return {"200": _told(), "202": _accepted()}
    if route.tagged:
        headers = {"ETag": {"schema": {"type": "string"}, "example": _TAG}}
        known = {"description": "What is known under the `ETag` is still true", "headers": headers}
        return {"200": {**_success(route), "headers": headers}, "304": known}
    return {"200": _success(route)}


def _success(route: Route[Any, Any]) -> dict[str, Any]:
    one = {"type": "object"} if route.answer is dict else _ref(route.answer)
    example = _RESOURCE_EXAMPLES[route.answer]
    if not route.page:
        content = _content(one, example)
        if route.streams:
            content["text/event-stream"] = _sample_stream()
        return {"description": route.summary, "content": content}
    content = _content(_page(one), {"items": [_listed(example)], "next": "eyJhIjoxfQ"})
    if route.streams:
        content["text/event-stream"] = _event_stream()
    return {
        "description": "One page; `next` is the `after` of the page that follows",
        "content": content,
    }


def _accepted() -> dict[str, Any]:
    taken = msgspec.structs.replace(
        samples.OPERATION_SAMPLE,
        phase="accepted",
        progress=0.0,
        detail="",
        host=None,
        trail=(),
        placement=None,
    )
    return {
        "description": "Taken; `Location` is the operation to follow",
        "headers": _operation_headers(),
        "content": _content(_ref(Operation), taken),
    }


def _told() -> dict[str, Any]:
    ended = msgspec.structs.replace(samples.OPERATION_SAMPLE, phase="succeeded", progress=1.0)
    return {
        "description": (
            "With `wait`: the operation, which has ended; `phase` says how. "
            "With `dry_run`: what would come of it, or its `problem`; nothing was done"
        ),
        "headers": _operation_headers(),
        "content": {
            JSON: {
                "schema": {"anyOf": [_ref(Operation), _ref(Forecast)]},
                "examples": {
                    "ended": {"value": _plain(ended)},
                    "dry_run": {"value": _plain(samples.FORECAST)},
                },
            }
        },
    }


def _operation_headers() -> dict[str, Any]:
    place = f"/v1/operations/{samples.OPERATION_SAMPLE.id}"
    return {
        "Location": {"schema": {"type": "string"}, "example": place},
        "Idempotency-Replayed": {
            "description": "`true` if this is the answer of an earlier request",
            "schema": {"type": "string"},
        },
    }


def _page(one: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["items"],
        "properties": {
            "items": {"type": "array", "items": one},
            "next": {"type": ["string", "null"], "description": "Absent on the last page"},
        },
    }


def _listed(example: Struct) -> Struct:
    """Lists leave an operation's trail out."""
    return msgspec.structs.replace(example, trail=()) if isinstance(example, Operation) else example


def _sample_stream() -> dict[str, Any]:
    return {
        "schema": {"type": "string", "description": "Server-sent events, each a sample"},
        "example": sample_frame(samples.LIVE_SAMPLE).decode(),
    }


def _event_stream() -> dict[str, Any]:
    data = msgspec.json.encode(_EVENT).decode()
    name = _EVENT.type.removeprefix("vireo.").rpartition(".")[0]
    return {
        "schema": {"type": "string"},
        "example": f"id: 4711\nevent: {name}\ndata: {data}\n\n",
    }


def _problem(status: int) -> dict[str, Any]:
    example = samples.INVALID if status == 400 else of_status(status)
    return {
        "description": _PROBLEMS[status],
        "content": {PROBLEM_JSON: {"schema": _ref(Problem), "example": _plain(example)}},
    }


def _plain_paths() -> dict[str, Any]:
    def health(name: str, summary: str, *, away: bool) -> dict[str, Any]:
        schema = {"type": "object", "properties": {"status": {"const": name}}}
        found: dict[str, Any] = {
            "operationId": name,
            "summary": summary,
            "tags": ["health"],
            "security": [],
            "responses": {
                "200": {"description": summary, "content": _content(schema, {"status": name})}
            },
        }
        if away:
            found["responses"]["503"] = {"$ref": "#/components/responses/503"}
        return {"get": found}

    return {
        "/health/live": health("live", "The process answers", away=False),
        "/health/ready": health("ready", "Requests can be served", away=True),
    }


def _schemas() -> dict[str, Any]:
    types: set[type[Any]] = {Forecast}
    types |= {route.answer for route in ROUTES if route.answer is not dict}
    types |= {route.body for route in ROUTES if route.body is not Nothing} | {Problem}
    ordered = sorted(types, key=_name)
    _, components = msgspec.json.schema_components(ordered, ref_template=_REF)
    return {name: _described(schema) for name, schema in components.items()}


def _described(schema: dict[str, Any]) -> dict[str, Any]:
    text = schema.get("description")
    return {**schema, "description": inspect.cleandoc(text)} if text else schema


def _ref(of: type[Any]) -> dict[str, Any]:
    return {"$ref": _REF.format(name=_name(of))}


def _name(of: Any) -> str:
    """As msgspec names it: `Definition_Policy_` for a Definition of a Policy."""
    parts = [part.__name__ for part in get_args(of)]
    return "_".join([of.__name__, *parts, ""]) if parts else of.__name__


def _content(schema: dict[str, Any], example: Any) -> dict[str, Any]:
    return {JSON: {"schema": schema, "example": _plain(example)}}


def _plain(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))
