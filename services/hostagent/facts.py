"""What the host is: gathered, compared, and told as `host.registered` at start and on every change."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

from schemas.resources import ForeignDomain, HostFacts
from services.hostagent import images
from services.hostagent.hypervisor import Hypervisor
from services.hostagent.settings import Settings

GIB = 1 << 30


async def gather(
    hypervisor: Hypervisor, settings: Settings, *, claimed: frozenset[str]
) -> HostFacts:
    """The facts now. `claimed`: the domains that assignments stand for; every other one is foreign."""
    description = await hypervisor.describe()
    survey = await hypervisor.survey()
    unclaimed = tuple(
        ForeignDomain(name=f"vireo {one.vm}", uuid=one.vm, state=one.state, cpus=0, memory_mib=0)
        for one in survey.ours
        if one.vm not in claimed
    )
    foreign = (*(one for one in survey.foreign if one.uuid not in claimed), *unclaimed)
    return HostFacts(
        host=settings.host,
        site=settings.site,
        hypervisor=description.driver,
        domain_type=description.domain_type,
        arch=description.arch,
        cpus=description.cpus,
        memory_mib=description.memory_mib,
        disk_gib=disk_total_bytes(settings.data_dir) // GIB,
        numa=description.numa,
        huge_pages=description.huge_pages,
        pools=description.pools,
        devices=description.devices,
        cpu_model=description.cpu_model,
        libvirt_version=description.libvirt_version,
        hypervisor_version=description.hypervisor_version,
        agent_version=agent_version(),
        kernel=platform.release(),
        networks=description.networks,
        vsock=description.vsock,
        images=images.survey(settings.image_dir),
        foreign=tuple(sorted(foreign, key=lambda domain: domain.uuid)),
        labels=settings.labels,
    )


def disk_total_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_frsize * found.f_blocks


def agent_version() -> str:
    try:
        return metadata.version("vireo")
    except metadata.PackageNotFoundError:
        return ""
