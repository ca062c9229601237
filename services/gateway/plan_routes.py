"""The routes of plans. How they are answered stands in `plans`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from schemas.plans import Plan, PlanBalance, PlanCheck, PlanDrain
from schemas.problems import FieldError
from services.gateway import plans
from services.gateway.model import Nothing
from services.gateway.route import Route


def band_errors(asked: PlanBalance) -> Iterator[FieldError]:
    """What is wrong with a band whose ends are good one by one."""
    if asked.start is not None and asked.stop is not None and asked.stop > asked.start:
        yield FieldError(field="/stop", detail="expected at most start")


PLANS: tuple[Route[Any, Any], ...] = (
    Route(
        method="POST",
        path="/v1/plans/balance",
        name="plan_balance",
        summary="Propose the moves that even the fleet out",
        description=(
            "Above an imbalance of `start` moves are proposed until it is down to `stop`; what is left "
            "out is what the site's settings say. Nothing is moved."
        ),
        handler=plans.balance,
        answer=Plan,
        query=Nothing,
        body=PlanBalance,
        check=band_errors,
        asks=True,
    ),
    Route(
        method="POST",
        path="/v1/plans/drain",
        name="plan_drain",
        summary="Propose the moves that empty a host",
        description="Who can go nowhere is named with the reasons. Nothing is moved.",
        handler=plans.drain,
        answer=Plan,
        query=Nothing,
        body=PlanDrain,
        asks=True,
    ),
    Route(
        method="POST",
        path="/v1/plans/check",
        name="check_plan",
        summary="Tell whether a plan still holds",
        description="If not, the answer is 409 and `reasons` says what has changed of what it relied on.",
        handler=plans.check,
        answer=PlanCheck,
        query=Nothing,
        body=Plan,
        asks=True,
    ),
)
