"""The examples of docs/scheduling.md, run as they stand there."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any, get_args

from msgspec.structs import replace

from schemas.assignments import VmAssignment
from schemas.commands import CreateVm
from schemas.definition_files import BadFile, read_policy
from schemas.definitions import Amounts, Project, Quota
from schemas.envelope import Envelope
from schemas.forecasts import Capacity, MoreHosts
from schemas.plans import Band, Plan
from schemas.policies import Policy, Term
from schemas.queries import CountCapacity
from schemas.resources import (
    DiskSpec,
    HostConfig,
    HostFacts,
    HostTuning,
    NumaNode,
    Placement,
    VmSpec,
)
from schemas.rules import (
    Affinity,
    DeviceRequest,
    Hardware,
    HostDevice,
    HostPreference,
    HostRules,
    LabelExpression,
    Spread,
    Taint,
    Toleration,
)
from schemas.telemetry import HostSample
from services.scheduler.balance import Taste
from services.scheduler.batches import decide_many, outcome_of
from services.scheduler.capacity import capacity as count_capacity
from services.scheduler.decide import decide
from services.scheduler.definitions import over_quota
from services.scheduler.fleet import Fleet
from services.scheduler.placement import NoHost
from services.scheduler.plans import changes, plan_balance, plan_drain
from services.scheduler.trial import supposed, told
from tests.fixtures import plans as plan_fixtures
from tests.fixtures.plans import FRAME, NOW, Guest
from tests.fixtures.scheduler import (
    LIMITS,
    POLICIES,
    command,
    create_many,
    facts,
    id_of,
    new_fleet,
    place,
    spec,
)

GUIDE = Path(__file__).parents[2] / "docs" / "scheduling.md"
ONE_TERM = tuple(
    Policy(name=term.replace("_", "-"), version=1, weights={term: 1.0}) for term in get_args(Term)
)
HARDWARE = ("numa", "devices", "pools", "huge_pages", "cpus", "memory_mib")


def host(name: str, **said: Any) -> HostFacts:
    labels = {key: value for key, value in said.items() if key not in HARDWARE}
    changes = {key: value for key, value in said.items() if key in HARDWARE}
    return facts(name, labels=labels, **changes)


def config(name: str, tuning: HostTuning | None = None, **changes: Any) -> HostConfig:
    return HostConfig(host=name, tuning=tuning or HostTuning(), **changes)


def vm(name: str = "web", **changes: Any) -> VmSpec:
    return spec(name, **changes)


def fleet(*known: HostFacts | HostConfig) -> Fleet:
    made = new_fleet(LIMITS, *ONE_TERM)
    for revision, one in enumerate(known, start=1):
        if isinstance(one, HostFacts):
            made.apply_facts(one, revision)
            made.heard_lease(one.host, at=0.0, lease_s=10.0)
        else:
            made.apply_config(one, revision)
    return made


def chosen(site: Fleet, wish: VmSpec, *, chance: int = 0) -> str | None:
    outcome = place(site, wish, chance=chance)
    return outcome.host if isinstance(outcome, Placement) else None


def why_not(site: Fleet, wish: VmSpec, *, host: str = "h1") -> str | None:
    for one in place(site, wish).excluded:
        if one.host == host:
            return f"{one.rule}: {one.detail}"
    return None


def run(site: Fleet, wish: VmSpec) -> str:
    """Place a VM and leave it there."""
    outcome = place(site, wish)
    assert not isinstance(outcome, NoHost)
    number = len(site.holdings.newest(99)) + 1
    site.apply_assignment(
        VmAssignment(
            vm=id_of(number),
            host=outcome.host,
            generation=1,
            spec=wish,
            power="running",
            operation=id_of(number),
            actor="",
            placement=outcome,
        ),
        number,
    )
    return outcome.host


def scores(term: str, site: Fleet, wish: VmSpec, *, now: float = 1.0) -> dict[str, float]:
    """Host → a term alone."""
    named = vm(policy=term.replace("_", "-"), cpus=wish.cpus, memory_mib=wish.memory_mib)
    outcome = place(site, named, now=now)
    return {one.host: one.terms[term] for one in outcome.ranking}  # type: ignore[union-attr]


def measure(site: Fleet, name: str, *, at: float, cpu_busy: float) -> None:
    site.heard_sample(name, HostSample(cpu_busy=cpu_busy), at=at)


def would(site: Fleet, wish: VmSpec, *, without_vm: int | None = None) -> str | dict[Any, int]:
    """The host that a dry run tells, or how many hosts each rule excludes."""
    gone = None if without_vm is None else id_of(without_vm)
    asked = supposed(site, policy=None, without_vm=gone)
    wished = command(CreateVm(vm=id_of(500), spec=replace(wish, name="another")), 400)
    said = told(decide(wished, asked, now=1.0), wished, asked, now=1.0)
    return said.host or said.excluded_by


def capacity(site: Fleet, wish: VmSpec | None = None, **said: Any) -> Capacity:
    asked = CountCapacity(spec=wish, **said)
    found = count_capacity(site.copy(), asked, site="lab", now=1.0, most=5_000)
    assert isinstance(found, Capacity)
    return found


def guest(name: str, host: str, **changes: Any) -> Guest:
    return Guest(spec=spec(name, **changes), host=host)


def peopled(names: list[str], guests: list[Guest]) -> Fleet:
    return plan_fixtures.peopled([facts(name) for name in names], guests)


def come(site: Fleet, new: Guest) -> None:
    site.apply_assignment(plan_fixtures.held(99, new), 999)


def drain(site: Fleet, name: str) -> Plan:
    return plan_drain(site, name, FRAME)


def balance(site: Fleet, *, start: float, stop: float) -> Plan:
    return plan_balance(site, Band(start=start, stop=stop, max_moves=9), Taste(), FRAME)


def check(plan: Plan, site: Fleet) -> dict[str, str]:
    return changes(plan, site, now=NOW)


def show(plan: Plan) -> None:
    for move in plan.moves:
        why = f", {move.reason}" if plan.kind == "balance" else ""
        print(f"{move.name}: {move.from_host} to {move.to_host}{why}")
    for one in plan.stays:
        rules = ", ".join(f"{count} by {rule}" for rule, count in one.excluded_by.items())
        print(f"{one.name} stays: {rules}")
    if not plan.moves and not plan.stays:
        print(f"nothing: {plan.detail}")


def mistakes(text: str) -> None:
    try:
        read_policy(text)
    except BadFile as error:
        print(error)


def several(*names: str, gang: bool, **changes: Any) -> Envelope[Any]:
    return create_many(1, *names, gang=gang, **changes)


def outcome(wish: Envelope[Any], known: Fleet) -> str:
    decided = outcome_of(decide_many(wish, known, now=1.0), gang=wish.data.gang)
    return decided if isinstance(decided, str) else decided.problem.detail


NAMES: dict[str, Any] = {
    thing.__name__: thing
    for thing in (
        *(Affinity, DeviceRequest, DiskSpec, Hardware, HostDevice, HostPreference, HostRules),
        *(HostTuning, LabelExpression, NumaNode, Spread, Taint, Toleration),
        *(Amounts, Project, Quota, over_quota),
        *(several, outcome),
        *(MoreHosts, capacity, would),
        *(balance, check, come, drain, guest, peopled, show),
        *(chosen, config, fleet, host, measure, mistakes, run, scores, vm, why_not),
    )
}


def test_every_example_says_the_truth() -> None:
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(verbose=False)
    # The parser takes backslashes of the text as Python would: the examples are to be read raw.
    examples = parser.get_doctest(GUIDE.read_text(), NAMES, GUIDE.name, str(GUIDE), 0)
    told: list[str] = []
    outcome = runner.run(examples, out=told.append)
    assert outcome.failed == 0, "".join(told)
    assert outcome.attempted > 40


def test_the_table_of_policies_is_that_of_the_files() -> None:
    rows = dict(re.findall(r"^\| ([a-z-]+) \| ([a-z_]+ \d.*) \|$", GUIDE.read_text(), re.MULTILINE))
    shipped = {
        name: ", ".join(f"{term} {weight:g}" for term, weight in policy.weights.items())
        for name, policy in POLICIES.items()
    }
    assert rows == shipped
