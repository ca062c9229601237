"""The OpenAPI document: valid, whole, and with examples that are what they exemplify."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema
import msgspec
import pytest
from openapi_spec_validator import validate

from services.gateway import openapi
from services.gateway.routes import ROUTES

DOCUMENT: dict[str, Any] = msgspec.json.decode(openapi.document_bytes())


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def contents() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, operation in operations():
        if "requestBody" in operation:
            for kind, content in operation["requestBody"]["content"].items():
                yield f"{name} request {kind}", content
        for status, response in operation["responses"].items():
            for kind, content in response.get("content", {}).items():
                yield f"{name} {status} {kind}", content
    for status, response in DOCUMENT["components"]["responses"].items():
        for kind, content in response["content"].items():
            yield f"{status} {kind}", content


def test_the_document_is_valid_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1")
    validate(DOCUMENT)


def test_every_route_is_in_it() -> None:
    listed = {name for name, _ in operations()}
    assert {f"{route.method.lower()} {route.path}" for route in ROUTES} <= listed


def test_every_route_but_health_needs_the_token() -> None:
    open_to_all = {name for name, operation in operations() if operation.get("security") == []}
    assert open_to_all == {"get /health/live", "get /health/ready"}
    assert DOCUMENT["security"] == [{"token": []}]


@pytest.mark.parametrize(("name", "content"), list(contents()), ids=lambda value: str(value)[:60])
def test_every_content_has_an_example_that_fits_its_schema(
    name: str, content: dict[str, Any]
) -> None:
    schema = {**content["schema"], "components": DOCUMENT["components"]}
    several = [one["value"] for one in content.get("examples", {}).values()]
    for example in several or [content["example"]]:
        jsonschema.Draft202012Validator(schema).validate(example)
