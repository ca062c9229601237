"""Policies and projects as people define them: which holds, what a quota lets through, CONFIG followed."""

from __future__ import annotations

import asyncio

from chassis.kv import purge, put
from schemas import subjects
from schemas.definitions import Amounts, Project, ProjectUse, Quota
from schemas.events import OperationFailed
from schemas.policies import Policy, Term
from schemas.problems import not_found
from schemas.queries import GetProjectUse
from schemas.resources import DiskSpec, HostImage
from schemas.wire import encode
from services.scheduler.decide import decide
from services.scheduler.fleet import Fleet
from services.scheduler.model import Placed, Refused
from tests.fixtures.scheduler import SITE, create, facts, fleet_of, id_of, new_fleet, spec
from tests.fixtures.scheduler_world import World, until

SHOP = Project(name="shop")


def fleet_with(*projects: Project) -> Fleet:
    fleet = fleet_of(facts("h1"))
    for project in projects:
        fleet.definitions.apply_project(project.name, project, 1)
    return fleet


def name_of(fleet: Fleet, **changes: str) -> str:
    policy = fleet.policy_of(spec(**changes))
    return policy.policy.name if policy else "none"


def test_a_vm_is_placed_by_its_own_policy_else_its_projects_else_the_sites() -> None:
    fleet = fleet_with(Project(name="shop", policy="pack"), Project(name="lab"))
    assert name_of(fleet, project="shop", policy="energy") == "energy"
    assert name_of(fleet, project="shop") == "pack"
    assert name_of(fleet, project="lab") == "spread"
    assert name_of(fleet) == "spread"


def test_what_was_applied_comes_before_what_is_shipped_and_leaves_it_when_removed() -> None:
    definitions = new_fleet().definitions
    mine = Policy(name="pack", version=2, weights={"balanced": 1.0})
    assert definitions.apply_policy("pack", mine, 5)
    found = definitions.policy("pack")
    assert found is not None
    assert found.policy == mine
    assert not definitions.apply_policy("pack", None, 4)
    assert definitions.apply_policy("pack", None, 6)
    shipped = definitions.policy("pack")
    assert shipped is not None
    assert shipped.policy.version == 1


def test_a_policy_applied_anew_under_its_old_version_is_not_mistaken_for_the_old_one() -> None:
    fleet = fleet_of(facts("h1"), facts("h2", memory_mib=9000))
    chosen = []
    terms: tuple[Term, ...] = ("free_memory", "packed")
    for revision, term in enumerate(terms, start=1):
        fleet.definitions.apply_policy(
            "mine", Policy(name="mine", version=1, weights={term: 1.0}), revision
        )
        decision = decide(create(1, policy="mine"), fleet, now=0.0)
        assert isinstance(decision, Placed)
        chosen.append(decision.assignment.host)
    assert chosen == ["h2", "h1"]


def test_an_unknown_project_is_refused() -> None:
    decision = decide(create(1, project="shop"), fleet_of(facts("h1")), now=0.0)
    assert decision == Refused(problem=not_found("project", "shop"), rests_on="project.shop")


def test_a_project_without_quotas_is_without_limit() -> None:
    assert isinstance(decide(create(1, project="shop"), fleet_with(SHOP), now=0.0), Placed)


def test_over_its_quota_a_vm_is_refused_with_every_quota_that_it_would_break() -> None:
    quota = Quota(vms=5, cpus=2, memory_mib=700, disk_gib=100)
    fleet = fleet_with(Project(name="shop", quota=quota))
    first = decide(create(1, "a", project="shop", cpus=2), fleet, now=0.0)
    assert isinstance(first, Placed)
    fleet.reserve(first.assignment)
    second = decide(create(2, "b", project="shop"), fleet, now=0.0)
    assert isinstance(second, Refused)
    assert second.problem.type == "urn:vireo:problem:quota-exceeded"
    assert second.problem.detail == (
        "Project 'shop' may not have so much: "
        "2 CPUs are allowed, 2 are taken, 1 more are asked for; "
        "700 MiB of memory are allowed, 512 are taken, 512 more are asked for."
    )
    assert isinstance(decide(create(3, "c"), fleet, now=0.0), Placed)
    fleet.release(vm=first.assignment.vm, host="h1")
    assert isinstance(decide(create(2, "b", project="shop"), fleet, now=0.0), Placed)


def test_a_disk_as_large_as_its_image_counts_as_the_image() -> None:
    fleet = fleet_with(Project(name="shop", quota=Quota(disk_gib=9)))
    large = facts("h2", images=(HostImage(name="tiny", size_gib=5),))
    fleet.apply_facts(large, 9)
    wish = spec("a", project="shop", disks=(DiskSpec(image="tiny"), DiskSpec(size_gib=3)))
    assert fleet.asks_for(wish) == Amounts(vms=1, cpus=1, memory_mib=512, disk_gib=8)


# while it runs


async def started(world: World) -> None:
    await world.start_warm()
    await world.host("h1")
    await until(lambda: (f"KV_{subjects.KV_FLEET}", "FLEET_h1") in world.bus._consumers)


async def define(world: World, kind: str, definition: Policy | Project) -> None:
    key = subjects.definition_key(kind, definition.name)
    await world.bus.publish(put(subjects.KV_CONFIG, key, encode(definition)))


async def test_what_is_defined_while_it_runs_holds_for_the_next_vm(world: World) -> None:
    await started(world)
    await define(world, "project", Project(name="shop", policy="mine"))
    await define(world, "policy", Policy(name="mine", version=3, weights={"packed": 1.0}))
    await world.send(create(1, project="shop"))
    await world.settle()
    placement = world.assignment(id_of(1001)).placement
    assert (placement.policy, placement.policy_version) == ("mine", 3)


async def test_a_definition_that_cannot_be_read_leaves_the_one_before_in_force(
    world: World,
) -> None:
    await started(world)
    await define(world, "policy", Policy(name="mine", version=3, weights={"packed": 1.0}))
    for nonsense in (b"\xff", b"{}", b'{"name":"mine","version":4,"weights":{"luck":1}}'):
        await world.bus.publish(put(subjects.KV_CONFIG, "policy.mine", nonsense))
    await world.send(create(1, policy="mine"))
    await world.settle()
    assert world.assignment(id_of(1001)).placement.policy_version == 3


async def test_a_project_that_was_removed_takes_no_more_vms(world: World) -> None:
    await started(world)
    await define(world, "project", SHOP)
    await world.send(create(1, "a", project="shop"))
    await world.settle()
    await world.bus.publish(purge(subjects.KV_CONFIG, "project.shop"))
    await world.send(create(2, "b", project="shop"))
    await world.settle()
    (failed,) = await failures(world)
    assert failed.problem == not_found("project", "shop")


async def failures(world: World) -> list[OperationFailed]:
    said = [event.data for event in await world.events()]
    return [data for data in said if isinstance(data, OperationFailed)]


async def test_a_scheduler_that_starts_knows_what_was_defined_before(world: World) -> None:
    await define(world, "project", Project(name="shop", quota=Quota(vms=1)))
    await started(world)
    for number in (1, 2):
        await world.send(create(number, f"vm{number}", project="shop"))
    await world.settle()
    assert len(await world.assignments()) == 1
    await world.kill()
    await world.start_warm()
    await world.send(create(3, "vm3", project="shop"))
    await world.settle()
    assert len(await world.assignments()) == 1


async def test_what_a_project_takes_is_told_beside_its_quota(world: World) -> None:
    quota = Quota(vms=2)
    await define(world, "project", Project(name="shop", quota=quota))
    await started(world)
    await world.send(create(1, project="shop"))
    await world.settle()
    used = Amounts(vms=1, cpus=1, memory_mib=512, disk_gib=2)
    wanted = ProjectUse(project="shop", site=SITE, used=used, quota=quota)
    assert await world.ask("use", GetProjectUse(project="shop")) == encode(wanted)
    unknown = await world.ask("use", GetProjectUse(project="none"))
    assert unknown == not_found("project", "none")


async def test_creates_that_come_together_do_not_outrun_a_quota(world: World) -> None:
    await define(world, "project", Project(name="shop", quota=Quota(vms=3)))
    await started(world)
    wishes = [create(number, f"vm{number}", project="shop") for number in range(1, 9)]
    await asyncio.gather(*(world.send(wish) for wish in wishes))
    await world.settle()
    assert len(await world.assignments()) == 3
