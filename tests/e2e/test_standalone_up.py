"""`vireo up` on real servers: what it starts is private, mended when it dies, gone when it ends."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import nats
import pytest

from deploy.control_plane import free_ports
from vireo import Client
from vireo.standalone.options import HostOption, UpOptions
from vireo.standalone.up import UpError, refuse_taken, up, write_nats_context

PATIENCE_S = 60
CHILDREN = ["gateway", "hostagent-h1", "inventory", "metrics", "nats", "postgres", "scheduler"]


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """Short, and open to the user that Postgres runs as."""
    directory = Path(tempfile.mkdtemp(prefix="vireo-up-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


class Up:
    """`vireo up` as a process."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.port, self.nats_port, self.prometheus_port = free_ports(3)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.subprocess.Process]:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "vireo.cli", "up", "--host", "h1=test:///default"),
            *("--state-dir", str(self.state_dir), "--system-user", "nobody"),
            *("--port", str(self.port), "--nats-port", str(self.nats_port)),
            *("--metrics-port", str(self.prometheus_port)),
            env={**os.environ, "XDG_CONFIG_HOME": str(self.state_dir / "xdg")},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            assert self._process.stdout is not None
            async with asyncio.timeout(PATIENCE_S):
                first = await self._process.stdout.readline()
                assert first.startswith(b"gateway "), self.logs()
                yield self._process
        finally:
            if self._process.returncode is None:
                self._process.send_signal(signal.SIGINT)
                await self._process.communicate()

    def logs(self) -> str:
        files = sorted((self.state_dir / "logs").glob("*.log"))
        return "\n".join(f"{file.name}:\n{file.read_text()[-2000:]}" for file in files)

    def children(self) -> dict[str, int]:
        """The processes that `vireo up` started, by name."""
        return {name: pid for pid in children_of(self.pid) if (name := self._name_of(pid))}

    def _name_of(self, pid: int) -> str | None:
        command = command_of(pid)
        if f"-D {self.state_dir}" in command:
            return "postgres"
        match = re.search(r"/config/([a-z0-9-]+)\.(?:toml|conf)", command)
        return match[1] if match else None


def children_of(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(child) for child in text.split()]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def lives(pid: int) -> bool:
    return bool(command_of(pid))  # of one that only waits to be reaped nothing is left to read


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.02)


async def test_everything_runs_privately_and_is_gone_after_ctrl_c(state_dir: Path) -> None:
    one = Up(state_dir)
    async with one.running() as process:
        children = one.children()
        assert sorted(["nats" if name == "nats" else name for name in children]) == CHILDREN
        secrets = [
            file.read_text(encoding="ascii").strip()
            for file in (state_dir / "credentials").iterdir()
        ]
        for pid in children.values():
            shown = command_of(pid) + Path(f"/proc/{pid}/environ").read_bytes().decode()
            assert not any(secret in shown for secret in secrets)
        for name in ("credentials", "config", "logs", "run", "nats"):
            assert (state_dir / name).stat().st_mode & 0o077 == 0, name
        for file in (*state_dir.glob("credentials/*"), *state_dir.glob("config/*")):
            assert file.stat().st_mode & 0o777 == 0o600, file
        assert not (state_dir / "postgres" / "socket").stat().st_mode & 0o077
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0
    assert not [name for name, pid in children.items() if lives(pid)]


async def test_a_service_that_is_killed_comes_back_and_nothing_else_is_touched(
    state_dir: Path,
) -> None:
    one = Up(state_dir)
    async with one.running():
        before = one.children()
        for name in ("gateway", "nats", "postgres"):
            os.kill(before[name], signal.SIGKILL)
        await until(
            lambda: all(
                one.children().get(name, before[name]) != before[name]
                for name in ("gateway", "nats", "postgres")
            )
        )
        after = one.children()
        assert {name: pid for name, pid in after.items() if pid == before[name]} == {
            name: before[name] for name in ("hostagent-h1", "inventory", "metrics", "scheduler")
        }


async def test_nothing_outlives_a_supervisor_that_is_killed(state_dir: Path) -> None:
    one = Up(state_dir)
    async with one.running() as process:
        children = one.children()
        process.kill()
        await process.wait()
        await until(lambda: not any(lives(pid) for pid in children.values()))
    async with one.running():
        assert sorted(one.children()) == CHILDREN  # and what is left on disk is of use


async def test_the_bus_lets_nobody_in_without_a_password_nor_speak_for_another(
    state_dir: Path,
) -> None:
    one = Up(state_dir)
    url = f"nats://127.0.0.1:{one.nats_port}"
    async with one.running():
        with pytest.raises(nats.errors.Error, match="Authorization Violation"):
            await nats.connect(url, allow_reconnect=False, error_cb=_ignore)
        password = (state_dir / "credentials/hostagent-h1.password").read_text().strip()
        refused: list[str] = []

        async def note(error: Exception) -> None:
            refused.append(str(error).lower())

        agent = await nats.connect(url, user="hostagent-h1", password=password, error_cb=note)
        for subject in (
            "vireo.evt.default.h2.vm.x.started",
            "vireo.cmd.default.vm.create",
            "$KV.FLEET.vm.x.h1",
            "$JS.API.STREAM.DELETE.EVENTS",
            "$JS.API.CONSUMER.CREATE.KV_FLEET.mine",
        ):
            await agent.publish(subject, b"")
        await agent.flush()
        await until(lambda: len(refused) == 5)
        assert all("permissions violation for publish" in text for text in refused)
        for subject in ("vireo.rpc.default.h2.ready", "vireo.svc.hostagent.ready", "$SRV.PING.x"):
            await agent.subscribe(subject)
        await agent.flush()
        await until(lambda: len(refused) == 8)
        assert all("permissions violation for subscription" in text for text in refused[5:])
        await agent.close()


async def test_a_vm_can_be_made_as_soon_as_it_says_what_next(state_dir: Path) -> None:
    one = Up(state_dir)
    async with one.running():
        token = (state_dir / "credentials/admin.token").read_text(encoding="ascii").strip()
        async with Client(f"http://127.0.0.1:{one.port}", token) as client:
            spec = {"name": "web1", "memory_mib": 64, "disks": [{"size_gib": 1}]}
            made = await client.vms.create(spec, wait=PATIENCE_S)
            vm = await client.vms.get(made.target)
    assert (vm.state, vm.host) == ("running", "h1")


async def test_each_agent_is_asked_by_its_hosts_name(state_dir: Path) -> None:
    one = Up(state_dir)
    async with one.running():
        password = (state_dir / "credentials/gateway.password").read_text().strip()
        asking = await nats.connect(
            f"nats://127.0.0.1:{one.nats_port}",
            user="gateway",
            password=password,
            inbox_prefix="_INBOX_gateway",
        )
        for endpoint in ("live", "ready"):
            answer = await asking.request(f"vireo.rpc.default.h1.{endpoint}", b"", timeout=5)
            health = msgspec.json.decode(answer.data)
            assert (health["service"], health["ready"]) == ("hostagent", True)
        for nobody in ("vireo.rpc.default.h9.ready", "vireo.svc.hostagent.ready"):
            with pytest.raises(nats.errors.NoRespondersError):
                await asking.request(nobody, b"", timeout=5)
        await asking.close()


async def test_natscli_finds_a_context_that_is_let_in(state_dir: Path) -> None:
    one = Up(state_dir)
    async with one.running():
        environ = {"XDG_CONFIG_HOME": str(state_dir / "xdg")}
        file = write_nats_context(state_dir, nats_port=one.nats_port, environ=environ)
        assert file == state_dir / "xdg" / "nats" / "context" / "vireo.json"
        assert file.stat().st_mode & 0o777 == 0o600
        context = msgspec.json.decode(file.read_bytes())
        operator = await nats.connect(
            context["url"], user=context["user"], password=context["password"]
        )
        streams = await operator.jetstream().streams_info()
        await operator.close()
    assert {"COMMANDS", "EVENTS", "KV_FLEET"} <= {stream.config.name for stream in streams}


async def _ignore(_error: Exception) -> None:
    return


async def test_one_state_directory_is_used_once_at_a_time(state_dir: Path) -> None:
    one = Up(state_dir)
    async with one.running():
        port, nats_port, metrics_port = free_ports(3)
        options = UpOptions(
            state_dir=state_dir,
            hosts=(HostOption(name="h1", uri="test:///default"),),
            gateway_port=port,
            nats_port=nats_port,
            metrics_port=metrics_port,
            system_user="nobody",
        )

        async def never(_ready: object) -> None:
            raise AssertionError

        with pytest.raises(UpError, match="runs already"):
            await up(options, never)


async def test_every_port_that_is_taken_is_told_with_the_option_to_change_it() -> None:
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        ports = ((port, "--nats-port"), (free_ports(1)[0], "--port"), (port, "--metrics-port"))
        with pytest.raises(UpError) as refused:
            refuse_taken(("127.0.0.1", number, option) for number, option in ports)
    assert str(refused.value) == "; ".join(
        f"cannot listen on 127.0.0.1 port {port} (Address already in use): choose another {option}"
        for option in ("--nats-port", "--metrics-port")
    )
