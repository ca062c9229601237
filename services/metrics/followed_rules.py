"""The shell that follows CONFIG for alert rules, and EVENTS for what rules about events count.

What belongs here: following, and starting anew when rules come to be about other events. Which rules
count is `alert_rules`', what is done with them `alerts`'.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

import structlog

from chassis.bus import CaughtUp, Incoming, Start
from chassis.kv import Entry, entry, stream_of, subject_of
from chassis.service import Rig
from schemas import subjects
from schemas.alerts import AlertRule
from schemas.subjects import parts_of_event
from services.metrics.alert_rules import Rules, Unreadable
from services.metrics.families import Labels, labelled

log = structlog.get_logger()


class FollowedRules:
    """`happened`: told of each event that a rule is about: its name, its labels, and (`at`) when."""

    def __init__(self, rig: Rig, rules: Rules, *, happened: Callable[..., None]) -> None:
        self._rig = rig
        self._rules = rules
        self._happened = happened
        self._changed = asyncio.Event()
        self.known = asyncio.Event()
        """Set once all that was defined so far is known."""

    @property
    def in_force(self) -> tuple[AlertRule, ...]:
        """By name."""
        return self._rules.in_force

    async def follow(self) -> None:
        """For ever."""
        keys = subject_of(subjects.KV_CONFIG, subjects.definition_key("rule", "*"))
        stream, start = stream_of(subjects.KV_CONFIG), Start(at="last_per_subject")
        async with self._rig.bus.follow(stream, [keys], start=start) as messages:
            async for message in messages:
                if isinstance(message, CaughtUp):
                    self.known.set()
                else:
                    self._learn(entry(message))
                self._changed.set()

    def _learn(self, known: Entry) -> None:
        try:
            self._rules.learn(known.key.partition(".")[2], known.value)
        except Unreadable as error:
            log.error("rule_not_understood", key=known.key, why=str(error))
        else:
            log.info("rule_learnt", key=known.key, removed=known.value is None)

    async def follow_events(self) -> None:
        """For ever: from now on, and anew whenever rules are about other events than before."""
        await self.known.wait()
        while True:
            events = self._events()
            async with asyncio.TaskGroup() as group:
                hearing = group.create_task(self._hear_all(events))
                while self._events() == events:
                    self._changed.clear()
                    await self._changed.wait()
                hearing.cancel()

    def _events(self) -> frozenset[str]:
        return frozenset(rule.event for rule in self.in_force if rule.event is not None)

    async def _hear_all(self, events: frozenset[str]) -> None:
        patterns = [
            subjects.event_pattern(site=self._rig.site, kind=kind, event=event)
            for kind, event in (name.split(".") for name in sorted(events))
        ]
        if not patterns:
            return
        async with self._rig.bus.follow(
            subjects.EVENTS, patterns, start=Start(at="new")
        ) as messages:
            async for message in messages:
                if not isinstance(message, CaughtUp):
                    self._hear(message)

    def _hear(self, message: Incoming) -> None:
        source, kind, id, event = parts_of_event(message.subject)
        labels: Labels = labelled(kind=kind, id=id, source=source)
        at: datetime = self._rig.clock.now()
        self._happened(f"{kind}.{event}", labels, at=at)
