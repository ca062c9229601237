"""What people define, on its way from Postgres to the bucket CONFIG, which the services follow.

Postgres is the truth, CONFIG a copy that can be made again. A key is written on condition that nobody
wrote it since it was read, and it is read before Postgres is: so a newer version is never undone by an
older one, however many processes copy.
"""

from __future__ import annotations

import asyncio

import structlog

from chassis import kv
from chassis.bus import Bus, BusError, CaughtUp, Conflict, Expect, Incoming, Outgoing, Start
from chassis.service import Clock, Retry
from schemas import subjects
from schemas.definitions import KINDS
from services.inventory.definition_store import DefinitionStore
from services.inventory.definitions import Identity

log = structlog.get_logger()

BUCKET = subjects.KV_CONFIG
STREAM = kv.stream_of(BUCKET)


class DefinitionOutbox:
    def __init__(
        self,
        store: DefinitionStore,
        bus: Bus,
        clock: Clock,
        *,
        batch: int,
        attempts: int,
        look_s: float,
        retry_s: float,
    ) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._batch = batch
        self._attempts = attempts
        self._look_s = look_s
        self._retry_s = retry_s

    async def copy(self, identity: Identity) -> None:
        """See that CONFIG has the newest version. Raises Retry if that cannot be said now."""
        for _ in range(self._attempts):
            try:
                await self._copy(identity)
            except Conflict:
                continue
            except BusError as error:
                raise Retry(self._retry_s, f"CONFIG: {type(error).__name__}") from error
            else:
                return
        raise Retry(self._retry_s, "CONFIG: others write the same key")

    async def _copy(self, identity: Identity) -> None:
        key = subjects.definition_key(identity.kind, identity.name)
        found = await self._bus.last(STREAM, kv.subject_of(BUCKET, key))
        entry = kv.entry(found) if found is not None else None
        newest = await self._store.newest(identity)
        if newest is None:
            return
        if (entry.value if entry is not None else None) != newest.data:
            revision = entry.revision if entry is not None else 0
            await self._bus.publish(_write(key, newest.data, revision=revision))
        await self._store.told(identity, newest.version)

    async def run(self, every_s: float) -> None:
        """Copy what a killed process left, and all that a lost bucket lacks; for ever."""
        while True:
            try:
                await self.catch_up()
            except (Retry, BusError, TimeoutError) as error:
                log.warning("config_copy_awaited", reason=str(error) or type(error).__name__)
            await self._clock.sleep(every_s)

    async def catch_up(self) -> None:
        """Copy what is noted as untold, then whatever else CONFIG has otherwise."""
        for identity in await self._store.outbox(limit=self._batch):
            await self.copy(identity)
        wanted = await self._store.all_newest()
        present = await self._present()
        differing = [each for each in sorted(wanted) if wanted[each] != present.get(each)]
        for identity in differing:
            log.info("config_differed", kind=identity.kind, name=identity.name)
            await self.copy(identity)

    async def _present(self) -> dict[Identity, bytes]:
        """What CONFIG holds of all kinds. Raises TimeoutError while the bucket is not there."""
        patterns = [kv.subject_of(BUCKET, subjects.definition_key(kind, "*")) for kind in KINDS]
        found: dict[Identity, bytes] = {}
        async with (
            asyncio.timeout(self._look_s),
            self._bus.follow(STREAM, patterns, start=Start(at="last_per_subject")) as messages,
        ):
            async for message in messages:
                if isinstance(message, CaughtUp):
                    break
                _take(found, message)
        return found


def _take(found: dict[Identity, bytes], message: Incoming) -> None:
    entry = kv.entry(message)
    kind, _, name = entry.key.partition(".")
    identity = next(Identity(kind=each, name=name) for each in KINDS if each == kind)
    if entry.value is None:
        found.pop(identity, None)
    else:
        found[identity] = entry.value


def _write(key: str, value: bytes | None, *, revision: int) -> Outgoing:
    expect = Expect(sequence=revision, over=kv.subject_of(BUCKET, key))
    if value is None:
        return kv.purge(BUCKET, key, expect=expect)
    return kv.put(BUCKET, key, value, expect=expect)
