"""The inventory by the SDK: its tables, and the bucket FLEET, made anew from its events."""

from __future__ import annotations

from typing import Generic, TypeVar

from vireo.dry_runs import Beginning
from vireo.operations import Wait
from vireo.transport import Transport

R = TypeVar("R")


class Inventory(Generic[R]):
    def __init__(self, transport: Transport, beginning: Beginning[R]) -> None:
        self._transport = transport
        self._beginning = beginning

    async def rebuild(
        self, *, compare_only: bool = False, wait: Wait = False, key: str | None = None
    ) -> R:
        """Make the tables anew beside those that are read, and let them take these' place; with
        `compare_only` the operation fails if they are not the same, and nothing is changed."""
        body = {"compare_only": compare_only}
        return await self._beginning.begin(
            "POST", "/v1/inventory/rebuild", body, wait=wait, key=key
        )


class Fleet(Generic[R]):
    def __init__(self, transport: Transport, beginning: Beginning[R]) -> None:
        self._transport = transport
        self._beginning = beginning

    async def rebuild(self, *, wait: Wait = False, key: str | None = None) -> R:
        """Write to the bucket FLEET what the events say was in it, where it has nothing or what is
        older. No guest is touched."""
        return await self._beginning.begin("POST", "/v1/fleet/rebuild", {}, wait=wait, key=key)
