"""What people define, as decisions need it: policies compiled, projects with what their VMs take. Pure.

What belongs here: which definition of a name holds now, and whether one more VM is within its project's
quota. A definition that cannot be read never gets here.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import asdict

from schemas.definitions import Amounts, Project, Quota
from schemas.policies import Policy
from schemas.problems import Problem, quota_exceeded
from schemas.resources import VmSpec
from services.scheduler.compiled import CompiledPolicy, compile_policy
from services.scheduler.requests import Demand

UNITS = {"vms": "VMs", "cpus": "CPUs", "memory_mib": "MiB of memory", "disk_gib": "GiB of disk"}


NOTHING = Amounts()


def amounts_of(spec: VmSpec, demand: Demand) -> Amounts:
    """What a VM takes of its project's quota; its disks as they are on its host, in whichever pool."""
    pools = sum(size_gib for (kind, _), size_gib in demand.counted if kind == "pool")
    return Amounts(
        vms=1, cpus=spec.cpus, memory_mib=spec.memory_mib, disk_gib=demand.disk_gib + pools
    )


class Definitions:
    """Policies and projects by name, and what each project's VMs take. Older revisions are ignored."""

    def __init__(self, shipped: Mapping[str, Policy], *, policy: str) -> None:
        """`policy` is the one for requests that name none, nor does their project."""
        self._site_policy = policy
        self._shipped = {name: compile_policy(one) for name, one in shipped.items()}
        self._policies: dict[str, CompiledPolicy] = {}
        self._projects: dict[str, Project] = {}
        self._revisions: dict[tuple[str, str], int] = {}
        self._taken: dict[str, Amounts] = {}

    def copy(self) -> Definitions:
        """The same, to be changed without harm."""
        twin = Definitions({}, policy=self._site_policy)
        twin._shipped, twin._policies = self._shipped.copy(), self._policies.copy()
        twin._projects = self._projects.copy()
        twin._revisions, twin._taken = self._revisions.copy(), self._taken.copy()
        return twin

    # policies

    def policy(self, name: str | None) -> CompiledPolicy | None:
        """The policy of this name, or the site's own. One that was applied comes before one of the same
        name that is shipped."""
        wanted = name or self._site_policy
        return self._policies.get(wanted) or self._shipped.get(wanted)

    def policy_for(self, spec: VmSpec) -> str:
        """The name of the policy to place a VM by: the one it names, its project's, the site's."""
        project = self._projects.get(spec.project) if spec.project is not None else None
        return spec.policy or (project.policy if project is not None else None) or self._site_policy

    def put_policy(self, policy: Policy) -> None:
        self._policies[policy.name] = compile_policy(policy)

    def apply_policy(self, name: str, policy: Policy | None, revision: int) -> bool:
        """As CONFIG has it; None: it was removed. Answers whether it was news."""
        if not self._is_news("policy", name, revision):
            return False
        if policy is None:
            self._policies.pop(name, None)
        else:
            self._policies[name] = compile_policy(policy)
        return True

    # projects

    def project(self, name: str) -> Project | None:
        return self._projects.get(name)

    def apply_project(self, name: str, project: Project | None, revision: int) -> bool:
        """As CONFIG has it; None: it was removed. Its VMs stay, and count again if it returns.
        Answers whether it was news."""
        if not self._is_news("project", name, revision):
            return False
        if project is None:
            self._projects.pop(name, None)
        else:
            self._projects[name] = project
        return True

    def taken(self, project: str) -> Amounts:
        """What a project's VMs take, decisions in flight included."""
        return self._taken.get(project, NOTHING)

    def count(self, project: str | None, amounts: Amounts, sign: int) -> None:
        if project is None:
            return
        taken = self.taken(project).plus(amounts, sign)
        self._taken[project] = taken
        if taken == NOTHING:
            del self._taken[project]

    def _is_news(self, kind: str, name: str, revision: int) -> bool:
        key = kind, name
        if revision <= self._revisions.get(key, 0):
            return False
        self._revisions[key] = revision
        return True


def over_quota(project: Project, *, taken: Amounts, asked: Amounts) -> Problem | None:
    """Why a VM is more than its project may have, naming every quota that it would break."""
    over = broken_by(project.quota, taken=taken, asked=asked)
    return quota_exceeded(project.name, over) if over else None


def broken_by(quota: Quota, *, taken: Amounts, asked: Amounts) -> list[str]:
    """What of a quota a VM would break, in words."""
    most, have, want = asdict(quota), asdict(taken), asdict(asked)
    return [
        f"{most[name]} {unit} are allowed, {have[name]} are taken, {want[name]} more are asked for"
        for name, unit in UNITS.items()
        if most[name] is not None and have[name] + want[name] > most[name]
    ]


def most_within(quota: Quota, *, taken: Amounts, asked: Amounts) -> int | None:
    """How many VMs that ask for so much a quota lets in, one after the other; None is no limit."""
    most, have, want = asdict(quota), asdict(taken), asdict(asked)
    left = {name: most[name] - have[name] for name in UNITS if most[name] is not None}
    if any(left[name] < want[name] for name in left):
        return 0
    return min((left[name] // want[name] for name in left if want[name]), default=None)
