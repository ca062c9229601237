"""How many more would fit, and what if there were fewer hosts or more. Pure.

Everything here is asked of a copy of the fleet, which is changed at will: hosts go and come, their VMs
move, copies are placed. Counting them is `room.py`'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from schemas.assignments import VmAssignment
from schemas.forecasts import Capacity, Displaced, MoreHosts, Room, RoomByLabel, Stuck
from schemas.policies import Policy
from schemas.problems import Problem, not_found
from schemas.queries import CountCapacity
from schemas.resources import HostConfig, HostFacts, HostImage, Placement, VmSpec
from services.scheduler.choice import Chooser
from services.scheduler.compiled import CompiledPolicy
from services.scheduler.definitions import broken_by, most_within
from services.scheduler.fleet import Fleet
from services.scheduler.model import Ask, Held, HostRow
from services.scheduler.placement import NoHost, place
from services.scheduler.requests import request_of
from services.scheduler.room import Fill, fill

NAME_LENGTH = 63


def capacity(
    fleet: Fleet, asked: CountCapacity, *, site: str, now: float, most: int
) -> Capacity | Problem:
    """The answer. `fleet` is a copy, and is spoilt; `most` bounds VMs that are placed one by one."""
    unknown = _unknown(fleet, asked)
    if unknown is not None:
        return unknown
    for more in asked.add:
        _add(fleet, more, now=now)
    moved = _take_away(fleet, asked.without, now=now, most=most)
    answer = Capacity(site=site, displaced=moved if asked.without else None)
    if asked.spec is None:
        return answer
    if asked.policy is not None:
        fleet.put_policy(asked.policy)
    spec = replace(asked.spec, policy=_named(asked.spec, asked.policy))
    if spec.project is not None and fleet.definitions.project(spec.project) is None:
        return not_found("project", spec.project)
    policy = fleet.policy_of(spec)
    if policy is None:
        return not_found("policy", spec.policy or "")
    return _count(answer, fleet, spec, policy, by=asked.by, now=now, most=most)


def _named(spec: VmSpec, policy: Policy | None) -> str | None:
    return spec.policy if policy is None else policy.name


def _unknown(fleet: Fleet, asked: CountCapacity) -> Problem | None:
    names = (*asked.without, *(more.like for more in asked.add if more.like is not None))
    return next((not_found("host", name) for name in names if fleet.host(name) is None), None)


# counting


def _count(
    answer: Capacity,
    fleet: Fleet,
    spec: VmSpec,
    policy: CompiledPolicy,
    *,
    by: str | None,
    now: float,
    most: int,
) -> Capacity:
    images = {row.name: row.images for row in fleet.hosts()}
    request = request_of(spec)
    found = fill(fleet.table, request, policy, images, now=now, most=most)
    room = sum(found.counts.values())
    rooms = sorted(found.counts.items(), key=lambda one: (-one[1], one[0]))
    shown = fleet.limits.reasons
    answer = replace(
        answer,
        policy=policy.policy.name,
        policy_version=policy.policy.version,
        project=spec.project,
        count=room,
        complete=found.complete,
        hosts=tuple(Room(host=host, count=count) for host, count in rooms[:shown]),
        hosts_with_room=len(rooms),
        by=by,
        values=() if by is None else _by_label(fleet, found, by)[:shown],
    )
    answer = _within_quota(answer, fleet, spec, room=room)
    if answer.count != room:
        # The next one would have a host.
        return answer
    stop = place(Chooser(fleet.table), request, policy, Ask(now=now, chance=most))
    if not isinstance(stop, NoHost):
        return answer
    return replace(
        answer,
        excluded=stop.excluded[: fleet.limits.shown_reasons],
        excluded_by=stop.excluded_by,
    )


def _within_quota(answer: Capacity, fleet: Fleet, spec: VmSpec, *, room: int) -> Capacity:
    """At most as many as the project's quota lets in, though hosts have room for more."""
    project = fleet.definitions.project(spec.project) if spec.project is not None else None
    if project is None:
        return answer
    taken, asked = fleet.definitions.taken(project.name), fleet.asks_for(spec)
    allowed = most_within(project.quota, taken=taken, asked=asked)
    if allowed is None or allowed > room:
        return answer
    over = broken_by(project.quota, taken=taken.plus(asked, allowed), asked=asked)
    return replace(answer, count=allowed, complete=True, over_quota=tuple(over))


def _by_label(fleet: Fleet, found: Fill, by: str) -> tuple[RoomByLabel, ...]:
    hosts, counts = Counter[str | None](), Counter[str | None]()
    for row in fleet.hosts():
        value = row.labels.get(by)
        hosts[value] += 1
        counts[value] += found.counts.get(row.name, 0)
    ordered = sorted(hosts, key=lambda value: (-counts[value], value is None, value or ""))
    return tuple(
        RoomByLabel(value=value, hosts=hosts[value], count=counts[value]) for value in ordered
    )


# fewer hosts


def _take_away(fleet: Fleet, hosts: Sequence[str], *, now: float, most: int) -> Displaced:
    """Take hosts away and place what they hold on the others."""
    gone = fleet.take_away_hosts(set(hosts))
    homeless = sorted((held for held in gone if not held.assignment.ended), key=_large_first)
    stuck = [one for held in homeless[:most] if (one := _move(fleet, held, now=now)) is not None]
    return Displaced(
        vms=len(homeless),
        placed=min(len(homeless), most) - len(stuck),
        stuck=tuple(stuck[: fleet.limits.reasons]),
    )


def _large_first(held: Held) -> tuple[int, int, str]:
    spec = held.assignment.spec
    return -spec.memory_mib, -spec.cpus, spec.name


def _move(fleet: Fleet, held: Held, *, now: float) -> Stuck | None:
    """Place a VM anew; or say why it fits nowhere."""
    here = held.assignment
    policy = fleet.policy_of(here.spec) or fleet.policy(None)
    if policy is None:
        return _stuck(here, "There is no policy to place it by.")
    outcome = fleet.place(here.spec, policy, Ask(now=now))
    if isinstance(outcome, Placement):
        fleet.reserve(replace(here, host=outcome.host, placement=outcome))
        return None
    return _stuck(
        here,
        outcome.problem.detail,
        excluded=outcome.excluded[: fleet.limits.shown_reasons],
        excluded_by=outcome.excluded_by,
    )


def _stuck(here: VmAssignment, detail: str, **why: Any) -> Stuck:
    return Stuck(vm=here.vm, name=here.spec.name, host=here.host, detail=detail, **why)


# more hosts


def _add(fleet: Fleet, more: MoreHosts, *, now: float) -> None:
    """Add hosts that might be: registered, heard a moment ago, empty."""
    model = fleet.host(more.like) if more.like is not None else None
    facts, config = _like(model) if model else _bare(fleet, more)
    config = replace(config, labels={**config.labels, **more.labels})
    for name in _free_names(fleet, more.like or "more", more.count):
        fleet.apply_facts(replace(facts, host=name), 1)
        fleet.apply_config(replace(config, host=name), 1)
        fleet.heard_lease(name, at=now, lease_s=fleet.limits.lease_s)


def _like(model: HostRow) -> tuple[HostFacts, HostConfig]:
    """The same machine with the same taints and tuning, without what others run on it."""
    assert model.facts is not None
    return replace(model.facts, foreign=()), replace(model.config, maintenance=False)


def _bare(fleet: Fleet, more: MoreHosts) -> tuple[HostFacts, HostConfig]:
    """A machine of a size that is known, with the images and networks that the fleet has anywhere."""
    known = [row.facts for row in fleet.hosts() if row.facts is not None]
    images = {image.name: image for facts in known for image in facts.images}
    facts = HostFacts(
        host="more",
        site="",
        hypervisor="",
        domain_type="kvm",
        arch=known[0].arch if known else "x86_64",
        cpus=more.cpus or 0,
        memory_mib=more.memory_mib or 0,
        disk_gib=more.disk_gib or 0,
        networks=tuple(sorted({name for facts in known for name in facts.networks})),
        images=tuple(
            HostImage(name=name, size_gib=images[name].size_gib) for name in sorted(images)
        ),
    )
    return facts, HostConfig(host="more")


def _free_names(fleet: Fleet, stem: str, count: int) -> list[str]:
    """Names that no host has: `h2-more-1`, …"""
    taken = {row.name for row in fleet.hosts()}
    found: list[str] = []
    number = 0
    while len(found) < count:
        number += 1
        end = f"-more-{number}" if stem != "more" else f"-{number}"
        name = f"{stem[: NAME_LENGTH - len(end)]}{end}"
        if name not in taken:
            found.append(name)
    return found
