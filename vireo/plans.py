"""Plans by the SDK: moves that are proposed; nothing is moved by any of this.

plan = await client.plans.drain("h1")
...
await client.plans.check(plan)
"""

from __future__ import annotations

from schemas.plans import Plan, PlanBalance, PlanCheck, PlanDrain
from vireo.paths import checked_ref
from vireo.transport import Transport


class Plans:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def balance(
        self,
        *,
        start: float | None = None,
        stop: float | None = None,
        max_moves: int | None = None,
    ) -> Plan:
        """The moves that take the fleet's imbalance from above `start` down to `stop`; what is left out
        is what the site's settings say."""
        wanted = PlanBalance(start=start, stop=stop, max_moves=max_moves)
        return await self._transport.ask("/v1/plans/balance", Plan, body=wanted)

    async def drain(self, host: str) -> Plan:
        """The moves that empty a host; who can go nowhere is named in `stays`."""
        wanted = PlanDrain(host=checked_ref("host", host))
        return await self._transport.ask("/v1/plans/drain", Plan, body=wanted)

    async def check(self, plan: Plan) -> PlanCheck:
        """Raises Conflict with what has changed, if the plan does not hold any more."""
        return await self._transport.ask("/v1/plans/check", PlanCheck, body=plan)
