"""The shell around alerts: looks at what is told, keeps what was found, says and sends it, obeys silences.

What belongs here: the order of doing, so that a crash in between neither forgets an alert nor tells of it
twice: first it is kept, then said as an event whose id is always the same, then sent. What becomes of an
alert is `alert_states`'.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import datetime, timedelta
from functools import partial

import msgspec
import structlog
from msgspec.structs import replace

from chassis.bus import BusError, Incoming, Outgoing
from chassis.dispatch import by_type
from chassis.kv import stream_of, subject_of
from chassis.service import Consumer, Endpoint, Retry, Rig
from chassis.threads import Threads
from schemas import subjects
from schemas.alerts import Alert, ListAlerts, ListSilences, RuleTrial, Silence, TryRule
from schemas.commands import AlertCommand, SilenceAlert, UnsilenceAlert
from schemas.definition_faults import faults_of
from schemas.envelope import Envelope
from schemas.forecasts import Forecast
from schemas.ids import time_of
from schemas.problems import FieldError, Problem, invalid_request, not_found
from schemas.queries import Try
from schemas.resources import Page
from schemas.wire import Undecodable, encode, unwrap
from services.metrics import alert_messages
from services.metrics.alert_rules import Measures, Rules, metrics_of
from services.metrics.alert_states import (
    Kept,
    Key,
    Limits,
    Tracked,
    evaluate,
    is_done,
    kept_of,
    key_of,
    shown,
    to_say,
    to_tell,
    trial,
)
from services.metrics.families import Family
from services.metrics.followed_rules import FollowedRules
from services.metrics.sending import Failures, Send
from services.metrics.settings import AlertSettings

log = structlog.get_logger()

COMMANDS = (SilenceAlert, UnsilenceAlert)
RETRY_S = 2.0
"""After the bus did not take something."""

Told = Callable[[frozenset[str]], Iterable[Family]]


class Alerts:
    """`told`: the newest of the metrics that are named, as it was when asked for; `sends`: who is to be
    told, by name."""

    def __init__(
        self,
        settings: AlertSettings,
        rig: Rig,
        *,
        rules: Rules,
        told: Told,
        sends: dict[str, Send],
    ) -> None:
        self._settings = settings
        self._rig = rig
        self._measures = Measures(most=settings.most_events)
        self._rules = FollowedRules(rig, rules, happened=self._measures.happened)
        self._told = told
        self._sends = sends
        self._limits = Limits(most=settings.most, gone_s=settings.gone_s)
        self._tracked: dict[Key, Tracked] = {}
        self._silences: dict[str, Silence] = {}
        self._well: set[Key] = set()
        self._kept = Kept()
        self._loaded = asyncio.Event()
        self._sending: dict[tuple[Key, str], asyncio.Task[None]] = {}
        self._threads = Threads(settings.senders, name="alerts")
        self._measuring = Threads(1, name="alert-rules")

    # what is looked at

    async def watch(self) -> None:
        """For ever."""
        await self._load()
        # An alert whose rule is not known is over: first all rules have to be.
        await self._rules.known.wait()
        while True:
            try:
                await self.look()
            except BusError as error:
                log.warning("alerts_not_said", why=str(error))
            await self._rig.clock.sleep(self._settings.every_s)

    async def look(self) -> None:
        """One look. Raises BusError where it could not be kept or said; the next one makes up for it."""
        now = self._rig.clock.now()
        # Of a large fleet that takes a while. What is told is a value, taken before the thread begins.
        rules = self._rules.in_force
        self._measures.use(rules)
        told = self._told(metrics_of(rules))
        measured = await self._measuring.run(partial(self._measures.of, told, now=now))
        self._tracked = evaluate(
            rules, measured, self._tracked, self._well, now=now, limits=self._limits
        )
        self._silences = {
            rule: silence for rule, silence in self._silences.items() if now < silence.until
        }
        await self._keep()
        await self._say()
        self._send(now)

    # what is kept, said and sent

    async def _load(self) -> None:
        while not self._loaded.is_set():
            try:
                message = await self._rig.bus.last(*self._place())
            except BusError as error:
                log.info("alerts_not_read", why=str(error))
                await self._rig.clock.sleep(RETRY_S)
                continue
            if message is not None:
                self._kept = msgspec.json.decode(message.data, type=Kept)
                self._tracked = {key_of(each): each for each in self._kept.tracked}
                self._silences = dict(self._kept.silences)
            self._loaded.set()

    async def _keep(self) -> None:
        """Only what changed, and never for a new value alone."""
        kept = kept_of(self._tracked, self._silences)
        if _without_values(kept) != _without_values(self._kept):
            await self._rig.bus.publish(Outgoing(subject=self._place()[1], data=encode(kept)))
            self._kept = kept

    def _place(self) -> tuple[str, str]:
        key = subjects.alerts_key(self._rig.site)
        return stream_of(subjects.KV_CONFIG), subject_of(subjects.KV_CONFIG, key)

    async def _say(self) -> None:
        for key, tracked in self._tracked.items():
            if to_say(tracked):
                alert = tracked.alert
                await self._rig.bus.publish(alert_messages.said_of(tracked, site=self._rig.site))
                self._tracked[key] = replace(tracked, said=alert.phase)
                log.info("alert_said", rule=alert.rule, phase=alert.phase)
        self._forget_done()
        await self._keep()

    def _forget_done(self) -> None:
        self._tracked = {
            key: each
            for key, each in self._tracked.items()
            if each.alert.phase != "resolved" or not is_done(each)
        }

    def _send(self, now: datetime) -> None:
        """Begin to tell whoever is to be told and is not being told."""
        for key, tracked in self._tracked.items():
            about = (key, tracked.alert.phase)
            if about not in self._sending and to_tell(tracked, self._silences, now):
                task = asyncio.create_task(self._tell(key, tracked.alert))
                self._sending[about] = task
                task.add_done_callback(partial(self._sent, about))

    def _sent(self, about: tuple[Key, str], _task: asyncio.Task[None]) -> None:
        self._sending.pop(about, None)

    async def _tell(self, key: Key, alert: Alert) -> None:
        await asyncio.gather(*(self._tell_one(name, alert) for name in self._sends))
        if key in self._tracked:
            self._tracked[key] = replace(self._tracked[key], told=alert.phase)

    async def _tell_one(self, name: str, alert: Alert) -> None:
        """At least once, unless it fails too often: then the log and the event are all there is."""
        wait_s = self._settings.retry_s
        for attempt in range(1, self._settings.tries + 1):
            try:
                now = self._rig.clock.now()
                await self._threads.run(partial(self._sends[name], alert, now))
            except Failures as error:
                fields = {"to": name, "rule": alert.rule, "attempt": attempt}
                log.warning("alert_not_sent", why=type(error).__name__, **fields)
            else:
                log.info("alert_sent", to=name, rule=alert.rule, phase=alert.phase)
                return
            if attempt < self._settings.tries:
                await self._rig.clock.sleep(wait_s)
                wait_s *= 2

    async def close(self) -> None:
        for task in [*self._sending.values()]:
            task.cancel()
        self._threads.close()
        self._measuring.close()

    # what is wished and asked

    async def on_command(self, command: Envelope[AlertCommand], _message: Incoming) -> None:
        """A repetition comes to the same: a silence begins with its command, however late that is read."""
        await self._loaded.wait()
        await self._rules.known.wait()
        at, site, rule = self._rig.clock.now(), self._rig.site, command.data.rule
        problem = self._why_not(rule)
        silence = self._silence_of(command)
        try:
            if problem is not None:
                said = alert_messages.refused(command, problem, site=site, at=at)
            else:
                self._silences.pop(rule, None)
                if silence is not None:
                    self._silences[rule] = silence
                await self._keep()
                said = alert_messages.done(command, silence, site=site, at=at)
            for message in said:
                await self._rig.bus.publish(message)
        except BusError as error:
            raise Retry(RETRY_S, type(error).__name__) from error

    def _silence_of(self, command: Envelope[AlertCommand]) -> Silence | None:
        data = command.data
        for_s = data.for_s if isinstance(data, SilenceAlert) else 0
        until = time_of(command.id) + timedelta(seconds=for_s)
        return alert_messages.silence_of(command, until=until)

    def _why_not(self, rule: str) -> Problem | None:
        known = {each.name for each in self._rules.in_force}
        return None if rule in known else not_found("alert rule", rule)

    async def foresee(self, question: Try) -> Forecast | Problem:
        try:
            command = unwrap(bytes(question.command))
        except Undecodable as error:
            return invalid_request(FieldError(field="/command", detail=str(error)))
        if not isinstance(command.data, COMMANDS):
            detail = f"the metrics service does not decide on {command.type}"
            return invalid_request(FieldError(field="/command/type", detail=detail))
        rule = command.data.rule
        return alert_messages.forecast(
            command, self._silences.get(rule), self._silence_of(command), self._why_not(rule)
        )

    async def list(self, _query: ListAlerts) -> Page:
        return Page(items=tuple(shown(self._tracked, self._silences, self._rig.clock.now())))

    async def try_rule(self, query: TryRule) -> RuleTrial | Problem:
        """One look at what a rule would find."""
        rule, now = query.rule, self._rig.clock.now()
        if faults := tuple(faults_of(rule)):
            return invalid_request(*faults)
        told = self._told(metrics_of([rule]))
        look = partial(Measures((rule,), most=1).of, told, now=now)
        measured = (await self._measuring.run(look))[rule.name]
        return trial(rule, measured, most=self._settings.most)

    async def silences(self, _query: ListSilences) -> Page:
        now = self._rig.clock.now()
        return Page(
            items=tuple(
                silence for _, silence in sorted(self._silences.items()) if now < silence.until
            )
        )

    def consumer(self) -> Consumer:
        return Consumer(
            stream=subjects.COMMANDS,
            name=f"alerts-{self._rig.site}",
            description="Commands to silence alerts",
            subjects=(subjects.every_command("alert", site=self._rig.site),),
            handler=by_type(dict.fromkeys(COMMANDS, self.on_command)),
            batch=1,
        )

    def endpoints(self) -> Iterator[Endpoint]:
        yield Endpoint(
            name="try",
            description="What would come of a command about alerts",
            request=Try,
            handler=self.foresee,
        )
        yield Endpoint(
            name="alert.list",
            description="What fires, and what may soon",
            request=ListAlerts,
            handler=self.list,
        )
        yield Endpoint(
            name="alert.try",
            description="What a rule finds now",
            request=TryRule,
            handler=self.try_rule,
        )
        yield Endpoint(
            name="alert.silences",
            description="The rules of which nobody is told",
            request=ListSilences,
            handler=self.silences,
        )

    def background(self) -> Iterator[Callable[[], Awaitable[None]]]:
        yield self.watch
        yield self._rules.follow
        yield self._rules.follow_events


def _without_values(kept: Kept) -> Kept:
    return replace(
        kept,
        tracked=tuple(
            replace(each, alert=replace(each.alert, value=0.0), measured_at=datetime.min)
            for each in kept.tracked
        ),
    )
