"""A round of the agent's statistics, against the bare bulk call of libvirt's on the same real domains."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import libvirt

from bench.report import Row, Target, row
from deploy.control_plane import ControlPlane
from deploy.guest import default_image_dir, ensure_guest
from deploy.lab import Lab, why_hosts_cannot_run
from services.hostagent.disks import Disks
from services.hostagent.libvirt_hypervisor import EVERYTHING, LibvirtHypervisor

VMS = 4
ROUNDS = 40
TIMEOUT_S = 120
ROUND = Target("at most", 1.25)


def run(directory: Path) -> Iterator[Row]:
    if reason := why_hosts_cannot_run():
        # The gauges' other figures need no guests, and are not to be lost for this one.
        print(f"bench: no statistics, real guests cannot run here: {reason}", file=sys.stderr)
        return
    ensure_guest(default_image_dir())
    with Lab(directory / "lab") as lab:
        (host,) = lab.up(1)
        settings = ("hostagent.domain_type=qemu", "hostagent.tick_s=300")
        with ControlPlane(
            directory / "state",
            {host.name: host.uri},
            image_dir=default_image_dir(),
            settings=settings,
        ) as plane:
            made = _made(plane)
            rounds, bare = asyncio.run(_measured(directory, host.uri))
            _forget(plane, made)
    yield row(
        "a round of statistics",
        [1000 * each for each in rounds],
        "ms",
        baselines=[1000 * each for each in bare],
        target=ROUND,
        note=f"{VMS} domains, against the bare bulk call on the same",
    )


def _made(plane: ControlPlane) -> list[str]:
    with _http(plane) as http:
        made = []
        for number in range(VMS):
            spec = {"name": f"s{number}", "memory_mib": 128, "disks": [{"image": "tiny"}]}
            answer = http.post("/v1/vms", json=spec, params={"wait": "60s"}).raise_for_status()
            made.append(str(answer.json()["target"]))
        return made


def _forget(plane: ControlPlane, vms: list[str]) -> None:
    with _http(plane) as http:
        for vm in vms:
            http.delete(f"/v1/vms/{vm}", params={"wait": "60s"}).raise_for_status()


def _http(plane: ControlPlane) -> httpx.Client:
    headers = {"Authorization": f"Bearer {plane.token}"}
    return httpx.Client(base_url=plane.url, headers=headers, timeout=TIMEOUT_S)


async def _measured(directory: Path, uri: str) -> tuple[list[float], list[float]]:
    """Seconds of each round, and of the bare call right after it."""
    hypervisor = LibvirtHypervisor(
        uri=uri,
        domain_type="qemu",
        disks=Disks(directory / "disks", default_image_dir()),
        cmdline="",
        threads=1,
        agent_threads=1,
        timeout_s=TIMEOUT_S,
        keepalive_s=30,
        sample_timeout_s=TIMEOUT_S,
    )
    keeping = asyncio.create_task(hypervisor.run())
    try:
        async with asyncio.timeout(TIMEOUT_S):
            while not hypervisor.connected:  # noqa: ASYNC110 - it is asked, it does not tell
                await asyncio.sleep(0.05)
        with_ours = await hypervisor.sample()
        if len(with_ours.ids) != VMS:
            raise RuntimeError(f"{len(with_ours.ids)} domains were told of, not {VMS}")
        return await _rounds(hypervisor, uri)
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])


async def _rounds(hypervisor: LibvirtHypervisor, uri: str) -> tuple[list[float], list[float]]:
    connection = libvirt.openReadOnly(uri)
    flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
    rounds, bare = [], []
    try:
        for _ in range(ROUNDS):
            began = time.perf_counter()
            await hypervisor.sample()
            between = time.perf_counter()
            # In a thread as the agent's: libvirt's client reads its answers in ours.
            await asyncio.to_thread(connection.getAllDomainStats, EVERYTHING, flags)
            rounds.append(between - began)
            bare.append(time.perf_counter() - between)
    finally:
        connection.close()
    return rounds, bare
