"""Plans asked for: moves that even the fleet out or empty a host, and whether a plan still holds.

What belongs here: which question a request becomes. Nothing is changed by any of it.
"""

from __future__ import annotations

from schemas import subjects
from schemas.plans import Plan, PlanBalance, PlanDrain
from services.gateway.answers import Answer
from services.gateway.asked import Asked, B
from services.gateway.desk import Desk
from services.gateway.model import Nothing


async def balance(desk: Desk, asked: Asked[Nothing, PlanBalance]) -> Answer:
    return await _ask(desk, asked, "balance.plan")


async def drain(desk: Desk, asked: Asked[Nothing, PlanDrain]) -> Answer:
    return await _ask(desk, asked, "drain.plan")


async def check(desk: Desk, asked: Asked[Nothing, Plan]) -> Answer:
    """Raises Refused with what has changed, if the plan does not hold any more."""
    return await _ask(desk, asked, "plan.check")


async def _ask(desk: Desk, asked: Asked[Nothing, B], endpoint: str) -> Answer:
    timeout_s = desk.settings.plan_timeout_s
    asked.extend(timeout_s)
    name = subjects.of_site(endpoint, site=desk.rig.site)
    return Answer(body=await desk.ask("scheduler", name, asked.body, timeout_s=timeout_s))
