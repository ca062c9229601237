"""Two want what is there once; what fits nowhere is refused at once, with the reasons."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import pytest

from chassis.nats.settings import NatsSettings
from schemas.problems import Problem
from schemas.resources import Operation
from tests.fixtures.plane import Site, ended, spec_of, until
from vireo import Client, OperationFailed

AT_ONCE_S = 1.0
UNPLACEABLE = "urn:vireo:problem:unplaceable"


async def _outcome(client: Client, name: str, **changes: Any) -> Operation:
    """Of a create of a VM that is not started: only its place matters."""
    pending = await client.vms.create(spec_of(name, power="stopped", **changes))
    return await ended(client, pending.id)


async def _most_of_a_host(client: Client, host: str) -> int:
    """Memory that two VMs cannot both have on the host."""
    return (await client.hosts.get(host)).facts.memory_mib * 6 // 10


async def test_two_creates_race_for_the_last_place_of_a_host(site: Site, client: Client) -> None:
    memory_mib = await _most_of_a_host(client, "h1")
    outcomes = await asyncio.gather(
        *(_outcome(client, f"racer{n}", memory_mib=memory_mib, host="h1") for n in (1, 2))
    )
    _check_one_too_many(outcomes, placed=1)
    problem = _problem_of(outcomes)
    assert problem.reasons["h1"].startswith(f"memory: needs {memory_mib} MiB, ")
    assert problem.reasons["h2"] == "pinned: the VM asks for host h1"
    assert [host for host, _ in site.domains()] == ["h1"]


async def test_three_creates_race_for_two_hosts(site: Site, client: Client) -> None:
    memory_mib = max([await _most_of_a_host(client, host) for host in site.hosts])
    outcomes = await asyncio.gather(
        *(_outcome(client, f"racer{n}", memory_mib=memory_mib) for n in (1, 2, 3))
    )
    _check_one_too_many(outcomes, placed=2)
    assert [host for host, _ in site.domains()] == ["h1", "h2"]
    problem = _problem_of(outcomes)
    assert {host: why.split(":")[0] for host, why in problem.reasons.items()} == {
        "h1": "memory",
        "h2": "memory",
    }


async def test_two_creates_race_for_a_name(site: Site, client: Client) -> None:
    outcomes = await asyncio.gather(*(_outcome(client, "same", host=host) for host in site.hosts))
    phases = sorted(outcome.phase for outcome in outcomes)
    assert phases == ["failed", "succeeded"]
    assert _problem_of(outcomes).type == "urn:vireo:problem:conflict"
    assert len(site.domains()) == 1


async def test_one_key_sent_many_times_at_once_makes_one_vm(site: Site, client: Client) -> None:
    key = str(uuid.uuid4())
    spec = spec_of("once", power="stopped")
    pending = await asyncio.gather(*(client.vms.create(spec, key=key) for _ in range(8)))
    assert len({one.id for one in pending}) == 1
    await ended(client, pending[0].id)
    assert len(site.domains()) == 1


async def test_what_fits_nowhere_is_refused_at_once(site: Site, client: Client) -> None:
    await _is_refused_at_once(client)
    assert site.domains() == []


async def test_what_fits_nowhere_is_refused_at_once_by_a_scheduler_that_has_just_started(
    site: Site, client: Client
) -> None:
    killed = site.kill("scheduler")

    async def back() -> bool:
        if site.pid("scheduler") in (None, killed):
            return False
        async with site.bus() as connection:
            await connection.request("vireo.svc.scheduler.ready", b"{}", timeout=0.5)
        return True

    await until(back, "the new scheduler answers")
    # For so long the bus keeps the killed one's place for it; then there is nothing to wait for.
    await _is_refused_at_once(client, after_s=NatsSettings().takeover_s)


async def _is_refused_at_once(client: Client, *, after_s: float = 0) -> None:
    began = time.monotonic()
    with pytest.raises(OperationFailed) as failed:
        await client.vms.create(spec_of("giant", memory_mib=16 * 1024 * 1024), wait=20)
    took_s = time.monotonic() - began
    assert failed.value.problem.type == UNPLACEABLE
    assert sorted(failed.value.problem.reasons) == ["h1", "h2"]
    assert all(why.startswith("memory: ") for why in failed.value.problem.reasons.values())
    assert took_s < after_s + AT_ONCE_S


def _check_one_too_many(outcomes: list[Operation], *, placed: int) -> None:
    phases = sorted(outcome.phase for outcome in outcomes)
    assert phases == ["failed", *["succeeded"] * placed]
    assert _problem_of(outcomes).type == UNPLACEABLE


def _problem_of(outcomes: list[Operation]) -> Problem:
    (problem,) = [outcome.problem for outcome in outcomes if outcome.problem is not None]
    return problem
