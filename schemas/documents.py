"""The documents that are generated from the types: JSON Schemas, sample bytes, AsyncAPI 3.0.

Pure: `documents()` maps file names to text. `python -m schemas` writes them to `schemas/generated/`,
and a test compares what is checked in with what this gives.
"""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

import msgspec
import yaml

from schemas import (
    assignments,
    causes,
    changes,
    definitions,
    forecasts,
    metrics,
    plans,
    queries,
    requests,
    resources,
    samples,
    telemetry,
)
from schemas.envelope import CONTENT_TYPE, Envelope
from schemas.problems import Problem
from schemas.subjects import CATALOG, STREAMS, Channel
from schemas.wire import encode

VERSION = "1.0.0"

VALUE_TYPES: tuple[type[Any], ...] = (
    assignments.VmAssignment,
    resources.HostFacts,
    resources.HostConfig,
    telemetry.HostFrame,
    telemetry.VmReading,
    telemetry.HostReading,
    metrics.Metrics,
    resources.Vm,
    resources.Host,
    resources.Operation,
    definitions.Template,
    definitions.Project,
    definitions.ProjectUse,
    requests.VmRequest,
    forecasts.Forecast,
    forecasts.PlacementReview,
    forecasts.Capacity,
    plans.Plan,
    plans.PlanCheck,
    plans.PlanBalance,
    plans.PlanDrain,
    Problem,
    queries.GetVm,
    queries.ListVms,
    queries.GetHost,
    queries.ListHosts,
    queries.GetOperation,
    queries.ListOperations,
    queries.ListEvents,
    queries.ShowEffects,
    causes.EffectTree,
    changes.ListChanges,
    changes.Changed,
    queries.GetDefinition,
    queries.ListDefinitions,
    queries.ListVersions,
    queries.GetVmReading,
    metrics.GetHistory,
    metrics.GetLive,
    metrics.LiveSamples,
    queries.Try,
    queries.CountCapacity,
    queries.GetProjectUse,
)

PARAMETERS = {
    "site": "The site's name",
    "source": "The host or service that says it",
    "host": "The host's name",
    "id": "The id of what the event is about",
}


def documents() -> dict[str, str]:
    """Every generated file: its path under `schemas/generated/` and its text."""
    return {
        **{
            f"json-schema/{channel.type}.json": _json(_schema(Envelope[channel.message]))  # type: ignore[name-defined]
            for channel in CATALOG
        },
        **{f"json-schema/{kind.__name__}.json": _json(_schema(kind)) for kind in VALUE_TYPES},
        **{
            f"samples/{sample.type}.json": _pretty(encode(sample))
            for sample in map(samples.enveloped, samples.MESSAGES)
        },
        **{
            f"samples/{type(value).__name__}.json": _pretty(encode(value))
            for value in samples.VALUES
        },
        "asyncapi.yaml": yaml.safe_dump(asyncapi(), sort_keys=False, width=100, allow_unicode=True),
    }


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document of the whole bus, seen from Vireo as one application.

    Source of the format: the AsyncAPI specification 3.0.0.
    """
    types = [Envelope[channel.message] for channel in CATALOG]  # type: ignore[name-defined]
    values = [assignments.VmAssignment, telemetry.HostFrame]
    _, components = msgspec.json.schema_components(
        [*types, *values], ref_template="#/components/schemas/{name}"
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Vireo",
            "version": VERSION,
            "description": "Commands, actions, events, assignments and telemetry on NATS.",
            "license": {"name": "Apache-2.0"},
            "contact": {"name": "The Vireo developers"},
            "tags": [
                {"name": stream.name, "description": stream.description} for stream in STREAMS
            ],
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": {"nats": {"host": "localhost:4222", "protocol": "nats"}},
        "channels": {_key(c.type): _channel(c) for c in CATALOG}
        | {
            "fleet.vm": _plain_channel("$KV.FLEET.vm.{id}.{host}", "VmAssignment"),
            "telemetry": _plain_channel("vireo.tel.{site}.{host}", "HostFrame"),
        },
        "operations": {_key(c.type): _operation(c) for c in CATALOG},
        "components": {
            "messages": {_key(c.type): _message(c) for c in CATALOG}
            | {name: _plain_message(name) for name in ("VmAssignment", "HostFrame")},
            "schemas": _tidy(components),
        },
    }


def _channel(channel: Channel) -> dict[str, Any]:
    return {
        "address": channel.subject,
        "description": _first_line(channel.message.__doc__),
        "tags": [{"name": channel.stream}],
        "messages": {_key(channel.type): {"$ref": f"#/components/messages/{_key(channel.type)}"}},
        "parameters": _parameters(channel.subject),
    }


def _plain_channel(address: str, message: str) -> dict[str, Any]:
    return {
        "address": address,
        "messages": {message: {"$ref": f"#/components/messages/{message}"}},
        "parameters": _parameters(address),
    }


def _operation(channel: Channel) -> dict[str, Any]:
    """Vireo receives commands; actions and events are its own."""
    receives = channel.stream == "COMMANDS"
    return {
        "action": "receive" if receives else "send",
        "channel": {"$ref": f"#/channels/{_key(channel.type)}"},
        "summary": _first_line(channel.message.__doc__) or channel.name,
        "messages": [{"$ref": f"#/channels/{_key(channel.type)}/messages/{_key(channel.type)}"}],
    }


def _message(channel: Channel) -> dict[str, Any]:
    sample = next(m for m in samples.MESSAGES if type(m) is channel.message)
    return {
        "name": channel.type,
        "title": channel.name,
        "summary": _first_line(channel.message.__doc__) or channel.name,
        "contentType": CONTENT_TYPE,
        "payload": {"$ref": f"#/components/schemas/Envelope_{channel.message.__name__}_"},
        "examples": [{"payload": msgspec.to_builtins(samples.enveloped(sample))}],
    }


def _plain_message(name: str) -> dict[str, Any]:
    sample = next(v for v in samples.VALUES if type(v).__name__ == name)
    return {
        "name": name,
        "contentType": "application/json",
        "payload": {"$ref": f"#/components/schemas/{name}"},
        "examples": [{"payload": msgspec.to_builtins(sample)}],
    }


def _parameters(address: str) -> dict[str, Any]:
    return {name: {"description": PARAMETERS[name]} for name in re.findall(r"\{(\w+)\}", address)}


def _key(type_: str) -> str:
    return type_.removeprefix("vireo.")


def _first_line(doc: str | None) -> str:
    text = (doc or "").strip().split("\n\n")[0]
    return " ".join(text.split()) if not text.startswith(("class ", "Struct")) else ""


def _schema(kind: Any) -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_tidy(msgspec.json.schema(kind)),
    }


def _tidy(schema: Any) -> Any:
    """Descriptions without the indentation of the docstrings they come from: Python 3.13 removes it
    while compiling, earlier versions keep it, and the documents must not tell which one wrote them."""
    if isinstance(schema, dict):
        return {key: _tidy_member(key, value) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_tidy(value) for value in schema]
    return schema


def _tidy_member(key: str, value: Any) -> Any:
    if key == "description" and isinstance(value, str):
        return inspect.cleandoc(value)
    return _tidy(value)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _pretty(raw: bytes) -> str:
    return msgspec.json.format(raw, indent=2).decode() + "\n"
