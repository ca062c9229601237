"""The shell of what is asked and not done: dry runs, capacity, use, answered over the bus.

Nothing here writes, publishes or reserves. What takes long is worked out on a copy, in a thread of its
own, so that commands go on being decided meanwhile.
"""

from __future__ import annotations

from functools import partial

from chassis.service import Endpoint, Retry, Rig
from chassis.threads import Threads
from schemas import subjects
from schemas.commands import CreateVms
from schemas.definitions import ProjectUse
from schemas.forecasts import Capacity, Forecast
from schemas.problems import FieldError, Problem, invalid_request, not_found
from schemas.queries import CountCapacity, GetProjectUse, Try
from schemas.wire import Undecodable, unwrap
from services.scheduler.capacity import capacity
from services.scheduler.decide import DECISIONS, decide
from services.scheduler.fleet import Fleet
from services.scheduler.hearing import NOT_YET, Hearing
from services.scheduler.settings import SchedulerSettings
from services.scheduler.trial import may_change, placed_by, supposed, told, told_many


class Asks:
    """Questions to one scheduler process."""

    def __init__(
        self, settings: SchedulerSettings, rig: Rig, fleet: Fleet, hearing: Hearing
    ) -> None:
        self._settings = settings
        self._rig = rig
        self._fleet = fleet
        self._hearing = hearing

    async def foretell(self, asked: Try) -> Forecast | Problem:
        """What would come of a command. Raises Retry while it isn't known who is there."""
        self._require_warm()
        try:
            command = placed_by(unwrap(bytes(asked.command)), asked.policy)
        except Undecodable as error:
            return invalid_request(FieldError(field="/command", detail=str(error)))
        fleet = supposed(self._fleet, policy=asked.policy, without_vm=asked.without_vm)
        now = self._rig.clock.monotonic()
        if isinstance(command.data, CreateVms):
            return told_many(command, fleet, now=now)
        if type(command.data) not in DECISIONS:
            detail = f"the scheduler does not decide on {command.type}"
            return invalid_request(FieldError(field="/command/type", detail=detail))
        decision = decide(command, fleet, now=now)
        if may_change(decision) and not self._hearing.settled:
            raise Retry(self._settings.retry_s, NOT_YET)
        return told(decision, command, fleet, now=now)

    async def count(self, asked: CountCapacity) -> Capacity | Problem:
        """How many more would fit."""
        self._require_warm()
        work = partial(
            capacity,
            self._fleet.copy(),
            asked,
            site=self._rig.site,
            now=self._rig.clock.monotonic(),
            most=self._settings.capacity_limit,
        )
        threads = Threads(1, name="capacity")
        try:
            return await threads.run(work)
        finally:
            threads.close()

    async def use(self, asked: GetProjectUse) -> ProjectUse | Problem:
        """What a project's VMs take here, beside its quota."""
        self._require_warm()
        definitions = self._fleet.definitions
        project = definitions.project(asked.project)
        if project is None:
            return not_found("project", asked.project)
        return ProjectUse(
            project=project.name,
            site=self._rig.site,
            used=definitions.taken(project.name),
            quota=project.quota,
        )

    def _require_warm(self) -> None:
        if not self._hearing.warm:
            raise Retry(self._settings.retry_s, NOT_YET)


def endpoints(
    settings: SchedulerSettings, rig: Rig, fleet: Fleet, hearing: Hearing
) -> tuple[Endpoint, ...]:
    """The scheduler's endpoints; their requests stand in `schemas.queries`."""
    asks = Asks(settings, rig, fleet, hearing)
    return (
        Endpoint(
            name=subjects.of_site("try", site=rig.site),
            description="What would come of a command; nothing is done",
            request=Try,
            handler=asks.foretell,
            concurrency=settings.concurrency,
        ),
        Endpoint(
            name=subjects.of_site("capacity", site=rig.site),
            description="How many more of a spec would fit, with hosts taken away or added",
            request=CountCapacity,
            handler=asks.count,
            concurrency=settings.capacity_questions,
        ),
        Endpoint(
            name=subjects.of_site("use", site=rig.site),
            description="What a project's VMs take at this site, beside its quota",
            request=GetProjectUse,
            handler=asks.use,
            concurrency=settings.concurrency,
        ),
    )
