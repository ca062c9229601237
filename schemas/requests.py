"""What people send to have a VM made, and the spec that it becomes. Pure.

A request says what differs from its template and its project; what nobody says is the spec's own default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from msgspec import Meta, Struct
from msgspec.structs import asdict

from schemas.cloud_init import CloudInit
from schemas.definitions import Project, Template
from schemas.ids import Labels, Name
from schemas.problems import FieldError
from schemas.resources import (
    Cpus,
    DiskSpec,
    MemoryMib,
    Metadata,
    NicSpec,
    PowerState,
    TemplateUse,
    VmSpec,
)
from schemas.rules import Hardware, HostRules

MOST_PAIRS = 64


class VmRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A wished VM: a `VmSpec` of which everything but the name may be left to a template."""

    name: Name
    template: Name | None = None
    """Gives what is left out here. Of `on`, `hardware`, `labels` and `metadata` it gives each part
    that is left out."""
    cpus: Cpus | None = None
    memory_mib: MemoryMib | None = None
    disks: Annotated[tuple[DiskSpec, ...], Meta(min_length=1, max_length=16)] | None = None
    """Needed, unless the template has disks."""
    nics: Annotated[tuple[NicSpec, ...], Meta(max_length=8)] | None = None
    labels: Annotated[Labels, Meta(max_length=MOST_PAIRS)] = {}
    metadata: Metadata = {}
    on: HostRules | None = None
    hardware: Hardware | None = None
    project: Name | None = None
    policy: Name | None = None
    """The policy to be placed by: this one, else the template's, the project's, the site's."""
    power: PowerState | None = None
    cloud_init: CloudInit | None = None
    """What cloud-init finds at the first boot. Only the VM's host is told; its spec says `seeded`."""

    @staticmethod
    def lacking(said: Mapping[str, Any]) -> Iterator[str]:
        """Fields that are needed because of what is said, and of what is not."""
        if said.get("template") is None and said.get("disks") is None:
            yield "disks"


PLAIN = ("cpus", "memory_mib", "disks", "nics", "project", "policy", "power")
"""What a request or template says as a whole."""


def project_of(request: VmRequest, template: Template | None) -> str | None:
    """The project that a VM will belong to."""
    return request.project or (template.project if template is not None else None)


def spec_of(
    request: VmRequest, template: Template | None, project: Project | None
) -> VmSpec | tuple[FieldError, ...]:
    """The whole spec: the request over its template over its project over the defaults."""
    sources = [source for source in (request, template) if source is not None]
    said: dict[str, Any] = {"name": request.name}
    for field in PLAIN:
        values = (getattr(source, field) for source in sources)
        value = next((value for value in values if value is not None), None)
        if value is not None:
            said[field] = value
    if project is not None and "policy" not in said:
        said["policy"] = project.policy
    said["labels"] = {
        **(project.labels if project else {}),
        **(template.labels if template else {}),
        **request.labels,
    }
    said["metadata"] = {**(template.metadata if template else {}), **request.metadata}
    for field, kind in (("on", HostRules), ("hardware", Hardware)):
        said[field] = _over(kind, [getattr(source, field) for source in reversed(sources)])
    if request.cloud_init is not None:
        said["seeded"] = True
    if template is not None:
        said["template"] = TemplateUse(name=template.name, version=template.version)
    errors = tuple(_errors(said))
    return errors or VmSpec(**said)


def _over(kind: type[Any], values: list[Any]) -> Any:
    """The later ones over the earlier ones, by field; a field at its default says nothing."""
    found: dict[str, Any] = {}
    blank = kind()
    for value in values:
        if value is not None:
            said = asdict(value)
            found |= {name: part for name, part in said.items() if part != getattr(blank, name)}
    return kind(**found)


def _errors(said: dict[str, Any]) -> list[FieldError]:
    errors = []
    if "disks" not in said:
        detail = "required, as its template has none" if "template" in said else "required"
        errors.append(FieldError(field="/disks", detail=detail))
    for field in ("labels", "metadata"):
        if len(said[field]) > MOST_PAIRS:
            detail = f"with the template's and project's there are more than {MOST_PAIRS}"
            errors.append(FieldError(field=f"/{field}", detail=detail))
    return errors
