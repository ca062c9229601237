"""Time that is moved by hand, ids that count up, and systemd's datagrams."""

from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

from chassis.clock import ManualClock, SystemClock
from chassis.ids import CountedIds, SystemIds
from chassis.notify import Notifier
from schemas.ids import is_uuid7, time_of

START = datetime(2026, 1, 1, tzinfo=UTC)


async def test_sleepers_wake_in_the_order_of_time_and_see_their_own_instant() -> None:
    clock = ManualClock(START)
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, *pauses: float) -> None:
        for pause in pauses:
            await clock.sleep(pause)
            woken.append((name, clock.monotonic()))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sleeper("often", 1, 1, 1))
        tasks.create_task(sleeper("once", 2.5))
        await clock.advance(2)
        assert woken == [("often", 1), ("often", 2)]
        await clock.advance(8)
    assert woken[2:] == [("once", 2.5), ("often", 3)]
    assert clock.now() == START + timedelta(seconds=10)
    assert clock.sleeping == 0


async def test_a_sleeper_that_was_cancelled_stays_asleep() -> None:
    clock = ManualClock(START)
    sleeper = asyncio.create_task(clock.sleep(1))
    await clock.advance(0)
    sleeper.cancel()
    await clock.advance(5)
    assert sleeper.cancelled()


def test_ids_are_uuid7_of_now_or_count_up_from_a_given_time() -> None:
    new = SystemIds().new()
    assert is_uuid7(new)
    assert abs(time_of(new) - SystemClock().now()) < timedelta(seconds=5)
    ids, again = CountedIds(START), CountedIds(START)
    first, second = ids.new(), ids.new()
    assert [first, second] == [again.new(), again.new()] == sorted([first, second])
    assert is_uuid7(first)
    assert time_of(first) == START


async def test_systemd_hears_that_a_service_is_ready_alive_and_stopping(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(5)
        notifier = Notifier({"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "20000"})
        notifier.ready("fine")
        assert listener.recv(100) == b"READY=1\nSTATUS=fine"
        alive = asyncio.create_task(notifier.keep_alive())
        for _ in range(3):
            assert await asyncio.to_thread(listener.recv, 100) == b"WATCHDOG=1"
        alive.cancel()
        await asyncio.wait([alive])
    notifier.stopping()  # nobody listens any more: no error


async def test_without_systemd_nothing_is_said_and_nothing_fails() -> None:
    notifier = Notifier({})
    notifier.ready("fine")
    await notifier.keep_alive()
    assert notifier.watchdog_s is None
