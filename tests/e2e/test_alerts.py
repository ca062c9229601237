"""Alerts at work on either bus: said as events, sent by webhook and mail, silenced, kept over a restart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from chassis.bus import Bus, CaughtUp, Outgoing, Start
from chassis.catalogue import ensure_streams
from chassis.clock import SystemClock
from chassis.ids import SystemIds
from chassis.kv import subject_of
from chassis.micro import ask
from chassis.run import running
from chassis.work import Work
from schemas import subjects
from schemas.alerts import Alert, AlertRule, ListAlerts, ListSilences, TryRule
from schemas.commands import AlertCommand, SilenceAlert, UnsilenceAlert
from schemas.events import VmCrashed
from schemas.queries import Try
from schemas.shipped import shipped_rules
from schemas.telemetry import HostFrame, HostSample
from schemas.wire import encode, unwrap, wrap
from services.metrics.handlers import build
from services.metrics.sending import SIGNATURE, signature
from services.metrics.settings import (
    AlertSettings,
    MailSettings,
    MetricsSettings,
    PrometheusSettings,
    WatchSettings,
    WebhookSettings,
)

PATIENCE_S = 15.0
TICK_S = 0.02
RULE = AlertRule(
    name="hot",
    metric="vireo_host_cpu_busy_ratio",
    above=0.9,
    clear=0.5,
    severity="critical",
    summary="Host {host} is hot\n",
)
SECRET = "a shared secret"


class Pager:
    """A webhook: refuses so often, then keeps what it is told."""

    def __init__(self, refuses: int) -> None:
        self.refuses = refuses
        self.url = ""
        self.told: list[tuple[dict[str, str], bytes]] = []

    @property
    def phases(self) -> list[str]:
        return [json.loads(body)["phase"] for _, body in self.told]

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers["Content-Length"]))
        status = "503 Busy" if self.refuses > 0 else "204 Fine"
        if self.refuses <= 0:
            self.told.append((headers, body))
        self.refuses -= 1
        writer.write(f"HTTP/1.1 {status}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()


class Mailboxes:
    """An SMTP server that takes everything."""

    def __init__(self) -> None:
        self.port = 0
        self.mails: list[str] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 sink\r\n")
        while line := (await reader.readline()).decode().strip():
            if line.upper() == "DATA":
                writer.write(b"354 go on\r\n")
                self.mails.append((await reader.readuntil(b"\r\n.\r\n")).decode())
            writer.write(b"221 bye\r\n" if line.upper() == "QUIT" else b"250 fine\r\n")
            if line.upper() == "QUIT":
                break
        writer.close()


@asynccontextmanager
async def listening(answer: Callable[..., Awaitable[None]]) -> AsyncIterator[int]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


class Site:
    """One site of the bus, which tests share."""

    def __init__(self, bus: Bus, name: str) -> None:
        self.bus = bus
        self.name = name


@pytest.fixture
def site(bus: Bus, unique: str) -> Site:
    return Site(bus, unique)


Start_ = Callable[..., AbstractAsyncContextManager[Work]]


@pytest.fixture
def starting(site: Site, tmp_path: Path) -> Start_:
    (tmp_path / "secret").write_text(SECRET + "\n")

    @asynccontextmanager
    async def start(*, pager: Pager | None = None, mails: Mailboxes | None = None) -> Any:
        await ensure_streams(site.bus, SystemClock())
        for rule in (RULE, *(replace(each, enabled=False) for each in shipped_rules().values())):
            await define(site, rule)
        alerts = AlertSettings(
            every_s=0.05,
            retry_s=0.02,
            tries=20,
            webhooks=()
            if pager is None
            else (WebhookSettings(url=pager.url, secret_file=tmp_path / "secret"),),
            mail=MailSettings()
            if mails is None
            else MailSettings(
                host="127.0.0.1", port=mails.port, tls="none", recipients=("ops@example.org",)
            ),
        )
        settings = MetricsSettings(
            site=site.name,
            prometheus=PrometheusSettings(port=0),
            watch=WatchSettings(every_s=60),
            alerts=alerts,
        )
        async with running("metrics", settings, build, bus=site.bus, make_streams=False) as work:
            await asyncio.wait_for(work.until_ready(), PATIENCE_S)
            yield work

    return start


async def define(site: Site, rule: AlertRule) -> None:
    """As the inventory copies it to CONFIG."""
    subject = subject_of(subjects.KV_CONFIG, subjects.definition_key("rule", rule.name))
    await site.bus.publish(Outgoing(subject=subject, data=encode(rule)))


async def soon(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():
            await asyncio.sleep(TICK_S)


async def alerts(site: Site) -> list[Alert]:
    answer = await ask(site.bus, "metrics", "alert.list", ListAlerts(), timeout_s=5)
    assert isinstance(answer, bytes)
    return [msgspec.convert(each, Alert) for each in json.loads(answer)["items"]]


async def busy(site: Site, cpu: float) -> None:
    """The host says so until it is heard: telemetry may be lost."""

    async def is_so() -> bool:
        frame = HostFrame(
            host="h1",
            site=site.name,
            at=datetime.now(UTC),
            sequence=1,
            interval_s=5.0,
            sample=HostSample(cpu_busy=cpu),
        )
        await site.bus.send(subjects.telemetry(site=site.name, host="h1"), encode(frame))
        firing = [alert for alert in await alerts(site) if alert.phase == "firing"]
        return bool(firing) == (cpu > 0.5)

    await soon(is_so)


async def said(site: Site) -> list[str]:
    """The events about alerts and the operations' ends, by their names."""
    everything = Start(at="all")
    names: list[str] = []
    async with site.bus.follow(
        subjects.EVENTS, [f"vireo.evt.{site.name}.>"], start=everything
    ) as messages:
        async for message in messages:
            if isinstance(message, CaughtUp):
                return names
            names.append(unwrap(message.data).type.removeprefix("vireo.").removesuffix(".v1"))
    return names


async def order(site: Site, data: AlertCommand) -> None:
    id = SystemIds().new()
    command = wrap(
        data,
        id=id,
        site=site.name,
        sender="gateway",
        at=datetime.now(UTC),
        about=f"alert/{data.rule}",
        operation=id,
        actor="token/admin",
    )
    subject = subjects.command(type(data), site=site.name)
    await site.bus.publish(Outgoing(subject=subject, data=encode(command), message_id=id))


async def test_who_is_to_be_told_is_told_by_webhook_and_mail_however_often_it_takes(
    site: Site, starting: Start_
) -> None:
    pager, mails = Pager(refuses=2), Mailboxes()
    async with listening(pager.answer) as port, listening(mails.answer) as mail_port:
        pager.url, mails.port = f"http://127.0.0.1:{port}/alerts", mail_port
        async with starting(pager=pager, mails=mails):
            await busy(site, 0.95)
            await soon(lambda: holds(pager.phases == ["firing"] and len(mails.mails) == 1))
            await busy(site, 0.1)
            await soon(lambda: holds(len(pager.told) == len(mails.mails) == 2))
    headers, body = pager.told[0]
    stamp = headers[SIGNATURE].split(",")[0].removeprefix("t=")
    signed_at = datetime.fromtimestamp(int(stamp), UTC)
    assert headers[SIGNATURE] == signature(body, SECRET, at=signed_at)
    assert pager.phases == ["firing", "resolved"]
    assert "Subject: [vireo] critical: Host h1 is hot\r\n" in mails.mails[0]
    assert "Subject: [vireo] resolved: Host h1 is hot\r\n" in mails.mails[1]
    assert await said(site) == ["alert.fired", "alert.resolved"]


async def test_a_restart_forgets_nothing_and_says_nothing_twice(
    site: Site, starting: Start_
) -> None:
    pager = Pager(refuses=0)
    async with listening(pager.answer) as port:
        pager.url = f"http://127.0.0.1:{port}/"
        async with starting(pager=pager):
            await busy(site, 0.95)
            await soon(lambda: holds(pager.phases == ["firing"]))
            await soon(lambda: is_kept(site, told="firing"))
            before = await alerts(site)
        async with starting(pager=pager):
            await soon(lambda: is_known(site))
            await busy(site, 0.95)
            assert [each.fired_at for each in await alerts(site)] == [
                each.fired_at for each in before
            ]
            await busy(site, 0.1)
            await soon(lambda: holds(len(pager.told) == 2))
    assert pager.phases == ["firing", "resolved"]
    assert await said(site) == ["alert.fired", "alert.resolved"]


async def test_of_a_silenced_rule_nobody_is_told_until_it_is_told_again(
    site: Site, starting: Start_
) -> None:
    pager = Pager(refuses=0)
    async with listening(pager.answer) as port:
        pager.url = f"http://127.0.0.1:{port}/"
        async with starting(pager=pager):
            await order(site, SilenceAlert(rule="hot", for_s=3600, reason="summer"))
            await soon(lambda: ends_with(site, "operation.succeeded"))
            await busy(site, 0.95)
            await soon(lambda: ends_with(site, "alert.fired"))
            assert [alert.silenced for alert in await alerts(site)] == [True]
            assert pager.told == []
        async with starting(pager=pager):
            answer = await ask(site.bus, "metrics", "alert.silences", ListSilences(), timeout_s=5)
            assert isinstance(answer, bytes)
            await soon(lambda: is_known(site))
            assert pager.told == []
            await order(site, UnsilenceAlert(rule="hot"))
            await soon(lambda: holds(pager.phases == ["firing"]))
    assert await said(site) == [
        "alert.silenced",
        "operation.succeeded",
        "alert.fired",
        "alert.unsilenced",
        "operation.succeeded",
    ]


async def test_a_rule_that_is_changed_while_it_runs_counts_from_the_next_look(
    site: Site, starting: Start_
) -> None:
    async with starting():
        await busy(site, 0.95)
        await define(site, replace(RULE, above=0.99, clear=0.98))
        await soon(lambda: ends_with(site, "alert.resolved"))
        on_crashes = AlertRule(
            name="hot", event="vm.crashed", grown_within_s=600, above=0, summary="{id} died"
        )
        await define(site, on_crashes)
        await soon(lambda: fires_on_a_crash(site))
        await define(site, replace(RULE, enabled=False))
        await soon(lambda: knows_of_nothing(site))


async def test_what_a_rule_finds_now_can_be_asked(site: Site, starting: Start_) -> None:
    async with starting():
        await busy(site, 0.95)
        for rule, bad in ((RULE, 1), (replace(RULE, above=0.99), 0)):
            answer = await ask(site.bus, "metrics", "alert.try", TryRule(rule=rule), timeout_s=5)
            assert isinstance(answer, bytes)
            found = json.loads(answer)
            assert (found["measured"], found["bad"]) == (1, bad)


async def test_a_rule_that_there_is_not_cannot_be_silenced(site: Site, starting: Start_) -> None:
    async with starting():
        await order(site, SilenceAlert(rule="cold", for_s=60))
        await soon(lambda: ends_with(site, "operation.failed"))


async def test_what_would_come_of_a_silence_can_be_asked(site: Site, starting: Start_) -> None:
    async with starting():
        id = SystemIds().new()
        data = SilenceAlert(rule="hot", for_s=60)
        now = datetime.now(UTC)
        command = wrap(data, id=id, site=site.name, sender="gateway", at=now, about="alert/hot")
        answer = await ask(
            site.bus, "metrics", "try", Try(command=msgspec.Raw(encode(command))), timeout_s=5
        )
        assert isinstance(answer, bytes)
        assert [change["field"] for change in json.loads(answer)["changes"]] == ["silenced_until"]
        assert await said(site) == []


async def holds(so: bool) -> bool:
    return so


async def ends_with(site: Site, event: str) -> bool:
    return (await said(site))[-1:] == [event]


async def fires_on_a_crash(site: Site) -> bool:
    """Crashes are told until the rule has heard of one: it hears what is new."""
    id = SystemIds().new()
    subject = subjects.event(VmCrashed, site=site.name, source="h1", id=id)
    await site.bus.publish(Outgoing(subject=subject, data=b"{}", message_id=id))
    return any(alert.summary.endswith(" died") for alert in await alerts(site))


async def knows_of_nothing(site: Site) -> bool:
    return await alerts(site) == []


async def is_known(site: Site) -> bool:
    return [alert.phase for alert in await alerts(site)] == ["firing"]


async def is_kept(site: Site, *, told: str) -> bool:
    message = await site.bus.last("KV_CONFIG", f"$KV.CONFIG.{subjects.alerts_key(site.name)}")
    return message is not None and f'"told":"{told}"'.encode() in message.data
