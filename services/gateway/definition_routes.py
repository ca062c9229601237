"""The routes of policies, templates, projects and alert rules: the same five for each, one to try a
policy, and one for what a project takes.

How they are answered stands in `definitions` and `forecasts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from msgspec import Struct

from schemas.alerts import AlertRule
from schemas.definition_faults import faults_of
from schemas.definitions import KINDS, Definition, DefinitionKind, ProjectUse, Template
from schemas.forecasts import PolicyTrial
from schemas.problems import FieldError
from schemas.resources import Operation
from services.gateway import checks, definitions, forecasts
from services.gateway.model import Nothing, PageQuery, TrialRequest, VersionQuery, WishQuery
from services.gateway.route import Route

PLURALS: dict[DefinitionKind, str] = {
    "policy": "policies",
    "template": "templates",
    "project": "projects",
    "rule": "rules",
}
PATHS: dict[DefinitionKind, str] = {"rule": "alerts/rules"}
"""Where the path is another word than the plural."""
CHECKS: dict[type[Any], Callable[[Any], Iterable[FieldError]]] = {
    Template: checks.part_errors,
    AlertRule: faults_of,
}


def routes_of(kind: DefinitionKind) -> tuple[Route[Any, Any], ...]:
    plural = PLURALS[kind]
    all_of_them = f"/v1/{PATHS.get(kind, plural)}"
    one = f"{all_of_them}/{{name}}"
    body: type[Struct] = KINDS[kind]
    definition: Any = Definition[body]  # type: ignore[valid-type]
    return (
        Route(
            method="GET",
            path=all_of_them,
            name=f"list_{plural}",
            summary=f"List {plural} by name",
            handler=partial(definitions.list_all, kind),
            answer=definition,
            query=PageQuery,
            body=Nothing,
            page=True,
        ),
        Route(
            method="GET",
            path=one,
            name=f"get_{kind}",
            summary=f"Show a {kind}, or one version of it",
            handler=partial(definitions.show, kind),
            answer=definition,
            query=VersionQuery,
            body=Nothing,
        ),
        Route(
            method="GET",
            path=f"{one}/versions",
            name=f"list_{kind}_versions",
            summary=f"List every version of a {kind}, newest first",
            handler=partial(definitions.versions, kind),
            answer=definition,
            query=PageQuery,
            body=Nothing,
            page=True,
        ),
        Route(
            method="PUT",
            path=one,
            name=f"apply_{kind}",
            summary=f"Make this the newest version of a {kind}",
            description=(
                "The body may be JSON or, as `application/yaml`, a file. Without `version` the next"
                " one is counted; one that is not newer is a conflict; what says the same changes"
                " nothing."
            ),
            handler=partial(definitions.apply, kind),
            answer=Operation,
            query=WishQuery,
            body=body,
            check=CHECKS.get(body),
            yaml=True,
        ),
        Route(
            method="DELETE",
            path=one,
            name=f"remove_{kind}",
            summary=f"Remove a {kind} that nothing names any more",
            handler=partial(definitions.remove, kind),
            answer=Operation,
            query=WishQuery,
            body=Nothing,
        ),
    )


TRIALS: tuple[Route[Any, Any], ...] = (
    Route(
        method="POST",
        path="/v1/policies/{name}/try",
        name="try_policy",
        summary="Show how a policy would place a VM now, beside the one that counts for it",
        description="With `draft`, that in place of what is kept under the name. Nothing is changed.",
        handler=forecasts.try_policy,
        answer=PolicyTrial,
        query=Nothing,
        body=TrialRequest,
        check=checks.trial_errors,
        asks=True,
    ),
)

USE: tuple[Route[Any, Any], ...] = (
    Route(
        method="GET",
        path="/v1/projects/{name}/use",
        name="get_project_use",
        summary="Show what a project's VMs take, beside its quota",
        handler=forecasts.show_use,
        answer=ProjectUse,
        query=Nothing,
        body=Nothing,
    ),
)

DEFINITIONS: tuple[Route[Any, Any], ...] = (
    *(route for kind in PLURALS for route in routes_of(kind)),
    *TRIALS,
    *USE,
)
