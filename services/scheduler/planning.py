"""The shell of plans: asked for over the bus, thought out on a copy, in a thread of its own.

Nothing here writes, publishes or reserves: a plan is a value in the hands of whoever asked for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from chassis.service import Endpoint, Retry, Rig
from chassis.threads import Threads
from schemas import subjects
from schemas.plans import Band, Plan, PlanBalance, PlanCheck, PlanDrain
from schemas.problems import FieldError, Problem, conflict, invalid_request, not_found
from services.scheduler.fleet import Fleet
from services.scheduler.hearing import NOT_YET, Hearing
from services.scheduler.plans import Frame, changes, plan_balance, plan_drain, refused
from services.scheduler.settings import SchedulerSettings

T = TypeVar("T")


class Planning:
    """Plans of one scheduler process."""

    def __init__(
        self, settings: SchedulerSettings, rig: Rig, fleet: Fleet, hearing: Hearing
    ) -> None:
        self._settings = settings
        self._rig = rig
        self._fleet = fleet
        self._hearing = hearing

    async def balance(self, asked: PlanBalance) -> Plan | Problem:
        """The moves that take the fleet below the band. Raises Retry while it isn't known who is there."""
        band = self._band(asked)
        if band.stop > band.start:
            detail = f"expected at most start, which is {band.start:g}"
            return invalid_request(FieldError(field="/stop", detail=detail))
        return await self._think(
            lambda fleet: plan_balance(fleet, band, self._settings.taste, self._frame())
        )

    async def drain(self, asked: PlanDrain) -> Plan | Problem:
        """The moves that empty a host."""
        self._require_settled()
        if self._fleet.host(asked.host) is None:
            return not_found("host", asked.host)
        return await self._think(lambda fleet: plan_drain(fleet, asked.host, self._frame()))

    async def check(self, plan: Plan) -> PlanCheck | Problem:
        """Whether a plan still holds, or what has changed."""
        if plan.site != self._rig.site:
            return conflict(f"The plan is for site {plan.site}, this is {self._rig.site}.")
        now = self._rig.clock.monotonic()
        changed = await self._think(lambda fleet: changes(plan, fleet, now=now))
        if changed:
            return refused(changed)
        return PlanCheck(plan=plan.id, checked_at=self._rig.clock.now())

    def _band(self, asked: PlanBalance) -> Band:
        settings = self._settings
        start = settings.balance_start if asked.start is None else asked.start
        stop = min(settings.balance_stop, start) if asked.stop is None else asked.stop
        return Band(start=start, stop=stop, max_moves=asked.max_moves or settings.balance_moves)

    def _frame(self) -> Frame:
        clock = self._rig.clock
        return Frame(
            id=self._rig.ids.new(), site=self._rig.site, at=clock.now(), now=clock.monotonic()
        )

    async def _think(self, work: Callable[[Fleet], T]) -> T:
        """On the fleet as it is now; commands go on being decided meanwhile."""
        self._require_settled()
        threads = Threads(1, name="plan")
        try:
            return await threads.run(partial(work, self._fleet.copy()))
        finally:
            threads.close()

    def _require_settled(self) -> None:
        """A host that was not heard yet must not count as silent."""
        if not self._hearing.settled:
            raise Retry(self._settings.retry_s, NOT_YET)


def endpoints(
    settings: SchedulerSettings, rig: Rig, fleet: Fleet, hearing: Hearing
) -> tuple[Endpoint, ...]:
    """The scheduler's endpoints for plans; their requests stand in `schemas.plans`."""
    planning = Planning(settings, rig, fleet, hearing)

    def endpoint(
        name: str, description: str, request: type[Any], handler: Callable[[Any], Awaitable[Any]]
    ) -> Endpoint:
        return Endpoint(
            name=subjects.of_site(name, site=rig.site),
            description=description,
            request=request,
            handler=handler,
            concurrency=settings.plan_questions,
        )

    return (
        endpoint("balance.plan", "Moves that even the fleet out", PlanBalance, planning.balance),
        endpoint("drain.plan", "Moves that empty a host", PlanDrain, planning.drain),
        endpoint("plan.check", "Whether a plan still holds", Plan, planning.check),
    )
