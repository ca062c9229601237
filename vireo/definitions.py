"""Policies, templates, projects and alert rules by the SDK: one room for each, all alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Generic, TypeVar

from schemas.alerts import AlertRule
from schemas.definitions import Definition, Project, ProjectUse, Template
from schemas.policies import Policy
from vireo.dry_runs import Beginning
from vireo.operations import Wait
from vireo.pages import PageOf, walk
from vireo.paths import checked_ref, query_of
from vireo.transport import Transport

D = TypeVar("D", Policy, Template, Project, AlertRule)
R = TypeVar("R")


class Definitions(Generic[D, R]):
    """What people define of one kind. Each call that changes something gives back an operation; those of
    `client.dry_run.policies` and so on change nothing and give back forecasts."""

    def __init__(
        self,
        transport: Transport,
        beginning: Beginning[R],
        *,
        kind: str,
        path: str,
        of: type[D],
    ) -> None:
        self._transport = transport
        self._beginning = beginning
        self._kind = kind
        self._path = path
        self._shape: Any = Definition[of]  # type: ignore[valid-type]

    async def apply(
        self, definition: D | Mapping[str, Any], *, wait: Wait = False, key: str | None = None
    ) -> R:
        """Make it the newest version of its name; what says the same as the newest changes nothing.

        A version that is not newer is a conflict; without one the next is counted.
        """
        name = definition["name"] if isinstance(definition, Mapping) else definition.name
        return await self._beginning.begin(
            "PUT", self._one(str(name)), definition, wait=wait, key=key
        )

    async def get(self, name: str, *, version: int | None = None) -> Definition[D]:
        """What counts now, or one version. A version's `definition` is None where it was a removal."""
        found: Definition[D] = await self._transport.read(
            self._one(name), self._shape, query=query_of(version=version)
        )
        return found

    def list(self, *, limit: int | None = None) -> AsyncIterator[Definition[D]]:
        """What counts now, by name; what comes with Vireo is among it."""
        return walk(self._transport, self._path, PageOf[self._shape], [], limit=limit)  # type: ignore[name-defined]

    def versions(self, name: str, *, limit: int | None = None) -> AsyncIterator[Definition[D]]:
        """Every version, newest first."""
        path = f"{self._one(name)}/versions"
        return walk(self._transport, path, PageOf[self._shape], [], limit=limit)  # type: ignore[name-defined]

    async def remove(self, name: str, *, wait: Wait = False, key: str | None = None) -> R:
        """Its versions can still be looked at. Refused while something names it."""
        return await self._beginning.begin("DELETE", self._one(name), None, wait=wait, key=key)

    def _one(self, name: str) -> str:
        return f"{self._path}/{checked_ref(self._kind, name)}"


class Projects(Definitions[Project, R]):
    """Projects are defined like the rest; VMs take of their quotas."""

    async def use(self, name: str) -> ProjectUse:
        """What a project's VMs take at the gateway's site, beside its quota."""
        return await self._transport.read(f"{self._one(name)}/use", ProjectUse)


def policies(transport: Transport, beginning: Beginning[R]) -> Definitions[Policy, R]:
    return Definitions(transport, beginning, kind="policy", path="/v1/policies", of=Policy)


def templates(transport: Transport, beginning: Beginning[R]) -> Definitions[Template, R]:
    return Definitions(transport, beginning, kind="template", path="/v1/templates", of=Template)


def projects(transport: Transport, beginning: Beginning[R]) -> Projects[R]:
    return Projects(transport, beginning, kind="project", path="/v1/projects", of=Project)


def rules(transport: Transport, beginning: Beginning[R]) -> Definitions[AlertRule, R]:
    return Definitions(transport, beginning, kind="rule", path="/v1/alerts/rules", of=AlertRule)
