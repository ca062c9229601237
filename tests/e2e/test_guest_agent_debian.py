"""The guest agent in the guests that people run: installed by cloud-init and by hand, kept by systemd."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from deploy.guest import GuestImage
from schemas.cloud_init import CloudInit
from services.hostagent import seeds
from tests.fixtures.debian_guest import USER_DATA, Guest, booted
from tests.fixtures.guest_site import Site, site_of, until
from tests.fixtures.hostagent import assignment_of, spec_of
from vireo import guest_agent

BOOT_S = 400.0
AGAIN_S = 120.0
MEMORY_KIB = 12 * 1024
BIND_SERVICE = f"{1 << 10:016x}"
UNIT = "systemctl show -p ActiveState -p UnitFileState -p MainPID -p NRestarts vireo-guest-agent"
PROCESS = """
sed -n 's/:[[:space:]]*/=/; s/ kB$//; /^\\(VmRSS\\|CapEff\\|CapBnd\\|NoNewPrivs\\|Seccomp\\)=/p' \\
  "/proc/$(systemctl show -p MainPID --value vireo-guest-agent)/status"
"""


@pytest.mark.timeout(900)
async def test_the_agent_comes_by_cloud_init_or_by_hand_and_systemd_keeps_it(
    debian_guest: GuestImage, short_path: Path
) -> None:
    files = guest_agent.files()
    seed = short_path / "seed.iso"
    given = CloudInit(user_data=guest_agent.user_data(*files, beside=USER_DATA))
    wish = assignment_of(spec=spec_of(seeded=True), cloud_init=given)
    seed.write_bytes(seeds.image_of(seeds.files_of(wish)))
    async with (
        site_of(short_path, silence_s=2 * BOOT_S) as site,
        booted(debian_guest, seed=seed, frames=site.path(), folder=short_path) as guest,
    ):
        await until(lambda: bool(site.of()), within_s=BOOT_S)
        frame = site.of()[0]
        assert (frame.hostname, frame.os.split()[0]) == ("web", "Debian")
        assert [one.mountpoint for one in frame.file_systems] == ["/"]
        assert (await guest.run("cloud-init status --wait")).strip() == "status: done"
        first = await guest.facts(UNIT)
        assert (first["ActiveState"], first["UnitFileState"]) == ("active", "enabled")
        await _is_small_and_may_little(guest)

        await guest.run("systemctl kill --signal=KILL vireo-guest-agent")
        second = await _another(guest, first)
        assert second["NRestarts"] == "1"
        await _speaks(site)

        await guest.run("exec sh", given=guest_agent.script(*files).encode())
        third = await _another(guest, second)
        assert (third["NRestarts"], third["UnitFileState"]) == ("0", "enabled")
        await _speaks(site)
        await _is_small_and_may_little(guest)


async def _speaks(site: Site) -> None:
    before = len(site.of())
    await until(lambda: len(site.of()) > before, within_s=AGAIN_S)


async def _another(guest: Guest, before: Mapping[str, str]) -> Mapping[str, str]:
    """The unit, when it runs in another process than before."""
    async with asyncio.timeout(AGAIN_S):
        while True:
            unit = await guest.facts(UNIT)
            if unit["ActiveState"] == "active" and unit["MainPID"] not in ("0", before["MainPID"]):
                return unit
            await asyncio.sleep(0.5)


async def _is_small_and_may_little(guest: Guest) -> None:
    """Of the agent's process: what it holds in memory, and what it could do at most."""
    process = dict(await guest.facts(PROCESS))
    assert int(process.pop("VmRSS")) <= MEMORY_KIB
    assert process == {
        "CapEff": BIND_SERVICE,
        "CapBnd": BIND_SERVICE,
        "NoNewPrivs": "1",
        "Seccomp": "2",
    }
