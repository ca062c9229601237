"""Keeping children going: start in order, wait until they are ready, restart who dies, stop in reverse.

What belongs here: processes. Which ones, and why, is `plan`'s. Guests are not our children: nothing in
here ever reaches them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import structlog
from msgspec import Struct

from vireo.standalone.child import Child, tiers
from vireo.standalone.logfile import LogFile
from vireo.standalone.readiness import Watch

log = structlog.get_logger()


class Limits(Struct, frozen=True, kw_only=True):
    """How patient the supervisor is."""

    first_attempts: int = 3
    """Starts of a child that was never ready, before `up` gives up."""
    backoff_first_s: float = 0.2
    backoff_most_s: float = 10.0
    slow_s: float = 10.0
    """A child that takes longer to be ready is told of, and where its log is."""
    calm_s: float = 10.0
    """A child that ran so long starts again without a pause."""
    log_bytes: int = 10 << 20
    """A log that grows beyond this becomes `.1`, and a new one begins."""


class ChildFailed(Exception):
    """A child would not come up; the text has its last words."""


class End(Struct, frozen=True, kw_only=True):
    """How one run of a child ended."""

    was_ready: bool
    status: str


def status_of(code: int | None) -> str:
    """A process's end in words: `exit 1`, `SIGKILL`."""
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit {code}"


class Supervisor:
    """Runs children until it is told to stop."""

    def __init__(
        self,
        children: Sequence[Child],
        *,
        run_dir: Path,
        log_dir: Path,
        environment: Mapping[str, str],
        once_ready: Mapping[str, Callable[[], Awaitable[None]]] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._tiers = tiers(children)
        self._run_dir = run_dir
        self._log_dir = log_dir
        self._environment = environment
        self._once_ready = dict(once_ready or {})
        self._limits = limits or Limits()
        self._ready = {child.name: asyncio.Event() for child in children}
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()

    def stop(self) -> None:
        """Stop all children, the youngest first; said twice, kill them."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    @property
    def pids(self) -> dict[str, int]:
        """The processes that run now, by child."""
        return {name: process.pid for name, process in self._processes.items()}

    async def run(self, on_ready: Callable[[], Awaitable[None]] | None = None) -> None:
        """Start all, call `on_ready` once, and return when all have stopped. Raises ChildFailed."""
        for directory in (self._run_dir, self._log_dir):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        keepers = {
            child.name: asyncio.create_task(self._keep(child), name=child.name)
            for tier in self._tiers
            for child in tier
        }
        try:
            await self._until_told(list(keepers.values()), on_ready)
        finally:
            self._stopping.set()
            await self._stop_all(keepers)

    async def _until_told(
        self,
        keepers: Sequence[asyncio.Task[None]],
        on_ready: Callable[[], Awaitable[None]] | None,
    ) -> None:
        """Until `stop`, or until a child fails for good, which raises."""
        stopping = asyncio.create_task(self._stopping.wait())
        announcing = asyncio.create_task(self._announce(on_ready))
        waiting: set[asyncio.Task[None] | asyncio.Task[bool]] = {stopping, announcing, *keepers}
        try:
            while stopping in waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            stopping.cancel()
            announcing.cancel()
            await asyncio.wait([stopping, announcing])

    async def _announce(self, on_ready: Callable[[], Awaitable[None]] | None) -> None:
        for ready in self._ready.values():
            await ready.wait()
        if on_ready is not None:
            await on_ready()

    # --- one child

    async def _keep(self, child: Child) -> None:
        """Start the child, again and again, until all stop."""
        wait_s = self._limits.backoff_first_s
        attempts = 0
        with LogFile(self._log_dir / f"{child.name}.log", self._limits.log_bytes) as output:
            while not self._stopping.is_set():
                for name in child.after:
                    await self._ready[name].wait()
                begun = time.monotonic()
                end = await self._run_once(child, output)
                if self._stopping.is_set():
                    return
                attempts = 0 if end.was_ready else attempts + 1
                self._give_up_or_log(child, attempts, end, output)
                if time.monotonic() - begun > self._limits.calm_s:
                    wait_s = self._limits.backoff_first_s
                await self._pause(wait_s)
                wait_s = min(wait_s * 2, self._limits.backoff_most_s)

    def _give_up_or_log(self, child: Child, attempts: int, end: End, output: LogFile) -> None:
        never_up = not all(ready.is_set() for ready in self._ready.values())
        if attempts >= self._limits.first_attempts and never_up and child.name in self._unborn():
            raise ChildFailed(f"{child.name} does not start. Its last words:\n{output.tail()}")
        log.warning(
            "child_died",
            child=child.name,
            status=end.status,
            failed_starts=attempts,
            log=str(output.path),
        )

    def _unborn(self) -> set[str]:
        return {name for name, ready in self._ready.items() if not ready.is_set()}

    async def _run_once(self, child: Child, output: LogFile) -> End:
        """Run the child to its end."""
        async with Watch(child.ready, self._run_dir / f"{child.name}.notify") as watch:
            # A pipe of our own: asyncio's would make us wait for whoever inherits it.
            reading, writing = os.pipe()
            copying = asyncio.create_task(output.copy(reading))
            try:
                process = await self._spawned(child, watch.environment, writing)
            finally:
                os.close(writing)
            self._processes[child.name] = process
            becoming = asyncio.create_task(self._become_ready(child, watch, process))
            try:
                await process.wait()
            finally:
                becoming.cancel()
                await asyncio.wait([becoming])
                self._kill_group(process)
                await asyncio.wait([copying], timeout=1)
                copying.cancel()
                del self._processes[child.name]
        return End(
            was_ready=not becoming.cancelled() and becoming.result(),
            status=status_of(process.returncode),
        )

    async def _become_ready(
        self, child: Child, watch: Watch, process: asyncio.subprocess.Process
    ) -> bool:
        """Wait until it is ready; kill it if that takes too long."""
        telling = asyncio.get_running_loop().call_later(self._limits.slow_s, self._tell_slow, child)
        try:
            async with asyncio.timeout(child.start_timeout_s):
                await watch.ready()
        except TimeoutError:
            log.warning("child_not_ready", child=child.name, after_s=child.start_timeout_s)
            self._kill_group(process)
            return False
        finally:
            telling.cancel()
        if child.name in self._once_ready:
            await self._once_ready[child.name]()
        log.info("child_ready", child=child.name, pid=process.pid)
        self._ready[child.name].set()
        return True

    def _tell_slow(self, child: Child) -> None:
        log.warning(
            "child_slow_to_start",
            child=child.name,
            after_s=self._limits.slow_s,
            patience_s=child.start_timeout_s,
            log=str(self._log_dir / f"{child.name}.log"),
        )

    async def _spawned(
        self, child: Child, extra: Mapping[str, str], output: int
    ) -> asyncio.subprocess.Process:
        """A new process, or none: being cancelled while it begins must not leave it behind."""
        beginning = asyncio.create_task(self._spawn(child, extra, output))
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            process = await beginning
            self._kill_group(process)
            await process.wait()
            raise

    async def _spawn(
        self, child: Child, extra: Mapping[str, str], output: int
    ) -> asyncio.subprocess.Process:
        # A session of its own: Ctrl-C on the terminal reaches us alone, and we stop in order.
        return await asyncio.create_subprocess_exec(
            *child.argv,
            cwd="/",
            env={**self._environment, **child.environment, **extra},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    # --- the end

    async def _stop_all(self, keepers: Mapping[str, asyncio.Task[None]]) -> None:
        """The youngest tier first; each is gone before the one it rests on is told."""
        for tier in reversed(self._tiers):
            await asyncio.gather(*(self._stop_one(child, keepers[child.name]) for child in tier))
        await asyncio.gather(*keepers.values(), return_exceptions=True)

    async def _stop_one(self, child: Child, keeper: asyncio.Task[None]) -> None:
        process = self._processes.get(child.name)
        if process is None:
            keeper.cancel()  # between two lives, or never begun
            return
        process.send_signal(child.stop_signal)
        hurry = asyncio.create_task(self._hurry.wait())
        done, _ = await asyncio.wait(
            [keeper, hurry], timeout=child.stop_timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        hurry.cancel()
        if keeper not in done:
            log.warning("child_killed", child=child.name)
            self._kill_group(process)
            await asyncio.wait([keeper])

    def _kill_group(self, process: asyncio.subprocess.Process) -> None:
        """End what is left of a child and of what it started."""
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return
