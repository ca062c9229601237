"""What people define, in Postgres: writing side. A command's outcome, its version and the note for CONFIG
are one transaction.

What belongs here: locking, loading what a decision rests on, keeping what was decided. What does not: the
decision (`definitions`), answers (`definition_reads`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec
from msgspec import Struct

from chassis.postgres import Connection, Postgres
from schemas import commands
from schemas.definitions import AnyDefinition, DefinitionKind
from schemas.envelope import Envelope
from schemas.forecasts import Forecast
from services.inventory.columns import json_of, text
from services.inventory.definitions import (
    SHOWN_USERS,
    Identity,
    Kept,
    Outcome,
    Surroundings,
    decide,
    forecast,
    identity_of,
    read,
    references,
)

Queries = Mapping[str, str]
Shipped = Mapping[DefinitionKind, Mapping[str, AnyDefinition]]
"""What comes with Vireo, by kind and name."""

NAMED_BY: dict[DefinitionKind, tuple[DefinitionKind, ...]] = {
    "policy": ("project", "template"),
    "project": ("template",),
    "template": (),
    "rule": (),
}
"""The kinds whose definitions may name one of this kind."""

_outcome = msgspec.json.Decoder(Outcome)


class Newest(Struct, frozen=True, kw_only=True):
    """The newest version of a name as CONFIG is to have it; `data` is None where it was removed."""

    version: int
    data: bytes | None


class DefinitionStore:
    """Safe to use from several processes at once."""

    def __init__(
        self, postgres: Postgres, queries: Queries, shipped: Shipped, *, most: int
    ) -> None:
        self._postgres = postgres
        self._queries = queries
        self._shipped = shipped
        self._most = most

    async def carry_out(
        self, command: Envelope[commands.DefinitionCommand], *, at: datetime
    ) -> Outcome:
        """What the command came to, now or when it was carried out before. Committed on return.

        Raises Retry while Postgres is away.
        """
        async with self._postgres.transaction() as connection:
            await connection.execute(self._queries["lock_definitions"])
            known = await connection.fetchval(self._queries["outcome"], command.id)
            if known is not None:
                return _outcome.decode(known)
            around = await self._surroundings(connection, command.data)
            outcome = decide(command.data, around, at=at)
            await self._keep(connection, outcome, command)
            return outcome

    async def foresee(self, command: commands.DefinitionCommand, *, at: datetime) -> Forecast:
        """What would come of the command now. Nothing is kept; raises Retry while Postgres is away."""
        async with self._postgres.transaction(readonly=True) as connection:
            around = await self._surroundings(connection, command)
        return forecast(command, around, decide(command, around, at=at))

    async def newest(self, identity: Identity) -> Newest | None:
        """None if the name was never applied."""
        async with self._postgres.connection() as connection:
            record = await connection.fetchrow(
                self._queries["newest"], identity.kind, identity.name
            )
        if record is None:
            return None
        data = record["data"]
        return Newest(version=record["version"], data=None if data is None else data.encode())

    async def all_newest(self) -> dict[Identity, bytes | None]:
        """What CONFIG is to hold, and (None) what it is not to hold any more."""
        async with self._postgres.connection() as connection:
            records = await connection.fetch(self._queries["all_newest"])
        return {
            Identity(kind=each["kind"], name=each["name"]): (
                None if each["data"] is None else each["data"].encode()
            )
            for each in records
        }

    async def outbox(self, *, limit: int) -> list[Identity]:
        """What CONFIG has not been told yet, or not surely."""
        async with self._postgres.connection() as connection:
            records = await connection.fetch(self._queries["outbox"], limit)
        return [Identity(kind=each["kind"], name=each["name"]) for each in records]

    async def told(self, identity: Identity, version: int) -> None:
        """CONFIG has this version, or a newer one."""
        async with self._postgres.connection() as connection:
            await connection.execute(
                self._queries["take_from_outbox"], identity.kind, identity.name, version
            )

    async def _surroundings(
        self, connection: Connection, command: commands.DefinitionCommand
    ) -> Surroundings:
        identity = identity_of(command)
        kept = await self._kept(connection, identity)
        beneath = identity.name in self._shipped.get(identity.kind, {})
        if isinstance(command, commands.ApplyDefinition):
            unknown = [
                field
                for field, named in references(command.definition)
                if (await self._kept(connection, named)).live is None
            ]
            crowded = kept.live is None and await self._is_crowded(connection, identity.kind)
            return Surroundings(kept=kept, unknown=tuple(unknown), crowded=crowded)
        users = await self._users(connection, identity)
        return Surroundings(kept=kept, users=users, shipped_beneath=beneath)

    async def _kept(self, connection: Connection, identity: Identity) -> Kept:
        record = await connection.fetchrow(self._queries["newest"], identity.kind, identity.name)
        shipped = self._shipped.get(identity.kind, {}).get(identity.name)
        last = max(record["version"] if record else 0, shipped.version if shipped else 0)
        if record is not None and record["data"] is not None:
            return Kept(last=last, live=read(identity.kind, record["data"]))
        return Kept(last=last, live=shipped, shipped=shipped is not None)

    async def _is_crowded(self, connection: Connection, kind: DefinitionKind) -> bool:
        count: int = await connection.fetchval(self._queries["count_live"], kind)
        return count >= self._most

    async def _users(self, connection: Connection, identity: Identity) -> tuple[str, ...]:
        limit = SHOWN_USERS + 1
        named = (identity.kind, identity.name)
        records = await connection.fetch(
            self._queries["users_among_definitions"], *named, NAMED_BY[identity.kind], limit
        )
        users = [f"{each['kind']} {each['name']}" for each in records]
        if identity.kind == "project":
            records = await connection.fetch(self._queries["users_among_vms"], *named, limit)
            users += [f"VM {each['name']}" for each in records]
        return tuple(users)

    async def _keep(
        self,
        connection: Connection,
        outcome: Outcome,
        command: Envelope[commands.DefinitionCommand],
    ) -> None:
        await connection.execute(self._queries["keep_outcome"], command.id, json_of(outcome))
        if outcome.change not in ("applied", "removed"):
            return
        key = (outcome.identity.kind, outcome.identity.name, outcome.version)
        data = None if outcome.definition is None else json_of(outcome.definition)
        actor = text(command.actor or "")
        await connection.execute(
            self._queries["add_version"], *key, data, command.id, actor, outcome.at
        )
        await connection.execute(self._queries["add_to_outbox"], *key)
