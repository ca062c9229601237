"""The routes by which the record is audited: each passes its query to the inventory and its answer back."""

from __future__ import annotations

from functools import partial
from typing import Any

from msgspec import Struct

from schemas.audit import (
    CheckLedger,
    CheckSeal,
    LedgerCheck,
    LedgerGap,
    LedgerProof,
    LedgerState,
    ListGaps,
    ListRows,
    ListSeals,
    ProveRows,
    ShowLedger,
)
from schemas.problems import not_found
from schemas.proofs import ProvenEvent
from schemas.seals import SignedSeal, is_day
from services.gateway.answers import Answer, refuse
from services.gateway.asked import Asked
from services.gateway.desk import Desk
from services.gateway.handlers import require_page
from services.gateway.model import Nothing
from services.gateway.route import Route


async def _ask(endpoint: str, desk: Desk, asked: Asked[Any, Nothing]) -> Answer:
    limit = getattr(asked.query, "limit", None)
    if limit is not None:
        require_page(desk, limit)
    return Answer(body=await desk.ask("inventory", endpoint, asked.query))


async def _show(desk: Desk, asked: Asked[Nothing, Nothing]) -> Answer:
    return Answer(body=await desk.ask("inventory", "ledger.show", ShowLedger()))


async def _check_seal(desk: Desk, asked: Asked[Nothing, Nothing]) -> Answer:
    day = asked.path["day"]
    if not is_day(day):
        raise refuse(not_found("seal", day))
    return Answer(body=await desk.ask("inventory", "ledger.check_seal", CheckSeal(day=day)))


def _asks(
    path: str, name: str, summary: str, query: type[Struct], answer: type[Struct], *, page: bool
) -> Route[Any, Any]:
    return Route(
        method="GET",
        path=path,
        name=f"{name}_ledger",
        summary=summary,
        handler=partial(_ask, f"ledger.{name}"),
        answer=answer,
        query=query,
        body=Nothing,
        page=page,
    )


AUDIT: tuple[Route[Any, Any], ...] = (
    Route(
        method="GET",
        path="/v1/ledger",
        name="show_ledger",
        summary="Show how far the record has come, and the key of its seals",
        handler=_show,
        answer=LedgerState,
        query=Nothing,
        body=Nothing,
    ),
    _asks(
        *("/v1/ledger/gaps", "gaps", "List what was passed by and not stored"),
        *(ListGaps, LedgerGap),
        page=True,
    ),
    _asks(
        *("/v1/ledger/seals", "seals", "List the signed days, oldest first"),
        *(ListSeals, SignedSeal),
        page=True,
    ),
    _asks(
        *("/v1/ledger/rows", "rows", "List events with all that is hashed with them"),
        *(ListRows, ProvenEvent),
        page=True,
    ),
    _asks(
        *("/v1/ledger/proof", "prove", "Prove that rows of one day are what was signed"),
        *(ProveRows, LedgerProof),
        page=False,
    ),
    _asks(
        *("/v1/ledger/check", "check", "Check the next rows against each other"),
        *(CheckLedger, LedgerCheck),
        page=False,
    ),
    Route(
        method="GET",
        path="/v1/ledger/seals/{day}/check",
        name="check_seal",
        summary="Check the rows of a day against its seal",
        handler=_check_seal,
        answer=LedgerCheck,
        query=Nothing,
        body=Nothing,
    ),
)
