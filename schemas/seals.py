"""Seals: what the inventory signs of its ledger, so that outsiders can hold it to that. Pure.

A seal names a day of the ledger, its first and last row and the root of the tree over their hashes. What
is signed are the bytes of the statement as they stand; whoever reads one reads it from those bytes. The
seal of a day that is not over says so (`final` is false): it proves rows of today.

An anchor says which rows were put away into which file: what is left of the ledger goes on from it.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from schemas.ids import END

Hex = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}" + END)]
"""32 bytes: a hash, or a public key."""
Signature = Annotated[str, Meta(pattern=r"^[0-9a-f]{128}" + END)]
Day = Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}" + END)]

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")

Month = Annotated[str, Meta(pattern=r"^\d{4}-\d{2}" + END)]

_SIGNED = b"vireo seal 1\n"
"""Stands before what is signed, so that the key's signature under anything else is none of a seal."""
_ANCHORED = b"vireo anchor 1\n"
"""The same for an anchor."""


class Seal(Struct, frozen=True, kw_only=True):
    """The rows of one day, from `first` to `last`; none where `last` is less than `first`."""

    stream: str
    day: Day
    first: int
    last: int
    root: Hex
    hash: Hex
    """Of the last row up to and with this day."""
    final: bool
    sealed_at: datetime

    @property
    def size(self) -> int:
        return self.last - self.first + 1


class SignedSeal(Struct, frozen=True, kw_only=True):
    """A seal's statement (its JSON, as it was signed), its Ed25519 signature and the public key."""

    statement: Annotated[str, Meta(max_length=4096)]
    signature: Signature
    key: Hex

    @property
    def signed_bytes(self) -> bytes:
        """What the signature is over."""
        return _SIGNED + self.statement.encode()


class Anchor(Struct, frozen=True, kw_only=True):
    """A month's rows, from `first` to `last`, that are in a file and in the database no more."""

    stream: str
    month: Month
    first: Annotated[int, Meta(ge=1)]
    last: int
    hash: Hex
    """Of the last of these rows: what the ledger goes on from."""
    received_at: datetime
    """When that row was stored."""
    file: str
    """The file's name."""
    sha256: Hex
    """Of the file as it was read back."""
    put_away_at: datetime


class SignedAnchor(Struct, frozen=True, kw_only=True):
    """An anchor's statement (its JSON, as it was signed), its Ed25519 signature and the public key."""

    statement: Annotated[str, Meta(max_length=4096)]
    signature: Signature
    key: Hex

    @property
    def signed_bytes(self) -> bytes:
        """What the signature is over."""
        return _ANCHORED + self.statement.encode()


Signed = SignedSeal | SignedAnchor

_seal = msgspec.json.Decoder(Seal)
_anchor = msgspec.json.Decoder(Anchor)


def is_day(text: str) -> bool:
    return _DAY.fullmatch(text) is not None


def statement_of(said: Seal | Anchor) -> str:
    return msgspec.json.encode(said).decode()


def seal_in(signed: SignedSeal) -> Seal:
    """What a seal says, whoever signed it. Raises ValueError."""
    return _seal.decode(signed.statement)


def anchor_in(signed: SignedAnchor) -> Anchor:
    """What an anchor says, whoever signed it. Raises ValueError."""
    return _anchor.decode(signed.statement)
