"""From the names in a request for a VM (template, project, policy) to the whole spec. Asks the inventory.

A request that names nothing, or a policy that comes with Vireo, asks nobody.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from schemas.definitions import Definition, DefinitionKind, Project, Template
from schemas.policies import Policy
from schemas.problems import invalid_request, unknown_names
from schemas.queries import GetDefinition
from schemas.requests import VmRequest, project_of, spec_of
from schemas.resources import VmSpec
from schemas.shipped import shipped
from services.gateway import checks
from services.gateway.answers import Refused, refuse
from services.gateway.desk import Desk

D = TypeVar("D", bound=Struct)

SHIPPED = frozenset(shipped())


async def whole_spec(desk: Desk, request: VmRequest, *, at: str = "") -> VmSpec:
    """The spec that the request means now; `at` is the pointer to it. Raises Refused, naming every name
    that is not known."""
    template = await _find(desk, "template", request.template, Template)
    project_name = project_of(request, template)
    project = await _find(desk, "project", project_name, Project)
    unknown: dict[str, str] = {}
    if request.template is not None and template is None:
        unknown[f"{at}/template"] = request.template
    if project_name is not None and project is None:
        unknown[f"{at}/project"] = project_name
    if request.policy is not None and not await _is_policy(desk, request.policy):
        unknown[f"{at}/policy"] = request.policy
    if unknown:
        raise refuse(unknown_names(unknown))
    spec = spec_of(request, template, project)
    errors = spec if isinstance(spec, tuple) else tuple(checks.spec_errors(spec))
    if errors or isinstance(spec, tuple):
        raise refuse(invalid_request(*(replace(each, field=at + each.field) for each in errors)))
    return spec


async def _is_policy(desk: Desk, name: str) -> bool:
    return name in SHIPPED or await _find(desk, "policy", name, Policy) is not None


async def _find(desk: Desk, kind: DefinitionKind, name: str | None, of: type[D]) -> D | None:
    """What counts now under a name; None if there is no name, or nothing under it."""
    if name is None:
        return None
    try:
        found = await desk.ask("inventory", "definition.get", GetDefinition(kind=kind, name=name))
    except Refused as refused:
        if refused.refusal.problem.status == 404:
            return None
        raise
    return msgspec.json.decode(found, type=Definition[of]).definition  # type: ignore[valid-type]
