"""Blocking calls in threads: bounded, answered one and all, and in nobody's way when they hang."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from chassis.threads import Threads


async def test_every_call_gets_its_own_answer() -> None:
    threads = Threads(4, name="test")
    answers = await asyncio.gather(*(threads.run(lambda n=n: n * n) for n in range(500)))  # type: ignore[misc]
    threads.close()
    assert answers == [n * n for n in range(500)]


async def test_what_a_call_raises_is_raised_to_the_caller_and_harms_no_other() -> None:
    threads = Threads(1, name="test")

    def fail() -> None:
        raise LookupError("nothing there")

    with pytest.raises(LookupError, match="nothing there"):
        await threads.run(fail)
    assert await threads.run(lambda: 7) == 7
    threads.close()


async def test_no_more_threads_work_at_once_than_were_asked_for() -> None:
    threads = Threads(3, name="test")
    together = threading.Barrier(3)
    names = await asyncio.gather(
        *(
            threads.run(lambda: (together.wait(10), threading.current_thread().name)[1])
            for _ in range(9)
        )
    )
    threads.close()
    assert set(names) == {"test-0", "test-1", "test-2"}


async def test_a_call_that_nobody_waits_for_any_more_leaves_its_thread_to_others() -> None:
    threads = Threads(1, name="test")
    hold = threading.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await threads.run(lambda: hold.wait(10))
    assert threads.in_hand == 1
    hold.set()
    assert await threads.run(lambda: "next") == "next"
    assert threads.in_hand == 0
    threads.close()


async def test_a_call_that_was_given_up_before_it_began_is_not_made() -> None:
    threads = Threads(1, name="test")
    hold, made = threading.Event(), threading.Event()
    first = asyncio.ensure_future(threads.run(lambda: hold.wait(10)))
    await asyncio.sleep(0)  # let it be handed over first
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await threads.run(made.set)
    hold.set()
    await first
    await threads.run(lambda: None)
    threads.close()
    assert not made.is_set()


def test_a_process_ends_though_a_call_hangs() -> None:
    program = (
        "import asyncio, threading\n"
        "from chassis.threads import Threads\n"
        "async def main():\n"
        "    call = asyncio.ensure_future(Threads(1, name='t').run(threading.Event().wait))\n"
        "    await asyncio.sleep(0)\n"
        "    call.cancel()\n"
        "asyncio.run(main())\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=20, check=False).returncode == 0
