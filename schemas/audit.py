"""What auditors ask of the inventory, and what they are answered. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from schemas.ids import END, OperationId, VmId
from schemas.ledger import Fault
from schemas.queries import Cursor, PageSize
from schemas.seals import Day, Hex, SignedAnchor, SignedSeal

MOST_PROVEN = 500
"""Rows in one proof."""

Numbers = Annotated[str, Meta(pattern=r"^\d{1,18}(,\d{1,18})*" + END, max_length=10_000)]
"""Rows of the ledger, `17,18,40`."""


class ShowLedger(Struct, frozen=True, kw_only=True):
    """Inventory `ledger.show`: a `LedgerState`."""


class ListGaps(Struct, frozen=True, kw_only=True):
    """Inventory `ledger.gaps`: a `Page` of `LedgerGap`, in the order of the stream."""

    limit: PageSize = 50
    after: Cursor | None = None
    filled: bool = False
    """Those too that were filled since."""


class ListSeals(Struct, frozen=True, kw_only=True):
    """Inventory `ledger.seals`: a `Page` of `SignedSeal`, oldest first."""

    limit: PageSize = 50
    after: Cursor | None = None


class ListRows(Struct, frozen=True, kw_only=True):
    """Inventory `ledger.rows`: a `Page` of events with what is hashed with them, in order."""

    limit: PageSize = 50
    after: Cursor | None = None
    operation: OperationId | None = None
    vm: VmId | None = None
    since: datetime | None = None
    """Stored then or later."""
    until: datetime | None = None
    """Stored before."""


class ProveRows(Struct, frozen=True, kw_only=True):
    """Inventory `ledger.prove`: a `LedgerProof` of rows that were stored on one day."""

    rows: Numbers


class CheckLedger(Struct, frozen=True, kw_only=True):
    """Inventory `ledger.check`: a `LedgerCheck` of the next rows after a number."""

    after: Annotated[int, Meta(ge=0)] = 0
    since: datetime | None = None
    """Begin with what was stored then; `after` goes on from there."""
    until: datetime | None = None
    """End before what was stored then."""


class CheckSeal(Struct, frozen=True, kw_only=True):
    """Inventory `ledger.check_seal`: a `LedgerCheck` of one day's rows against what was signed."""

    day: Day


class LedgerState(Struct, frozen=True, kw_only=True):
    """How far the ledger has come and how it is."""

    stream: str
    rows: int
    hash: Hex
    """Of the last row."""
    received_at: datetime
    key: Hex | None
    """The public key of the seals; None where none are made."""
    sealed_through: Day | None
    alarms: tuple[str, ...] = ()
    archives: tuple[SignedAnchor, ...] = ()
    """The months that were put away into files, oldest first: the rows go on from the last one."""


class LedgerGap(Struct, frozen=True, kw_only=True):
    """Places in the stream, from `first` to `last`, that were passed by."""

    epoch: int
    first: int
    last: int
    state: Literal["open", "filled", "missing", "unreadable"]
    found_at: datetime
    settled_at: datetime | None


class LedgerProof(Struct, frozen=True, kw_only=True):
    """A signed seal and the hashes that its tree consists of besides some rows."""

    seal: SignedSeal
    proof: tuple[Hex, ...]


class LedgerCheck(Struct, frozen=True, kw_only=True):
    """What was found wrong in a piece of the ledger."""

    through: int
    """The last number looked at: where the next piece begins."""
    last: int
    """The last number there is to look at."""
    rows: int
    faults: tuple[Fault, ...]
    ended: bool
    away: str = ""
    """The file into which these rows were put away; then it says what they are, not the database."""
