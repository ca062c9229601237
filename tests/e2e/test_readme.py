"""What the documents show is true: their blocks are run here, in their order, on real parts.

`console` blocks are run line by line and their output compared by shape; a `python` block is the file that
its first line names; `nats` commands are spoken as the requests that natscli makes of them, with the
context that Vireo wrote. What cannot be run here is listed in PARSED with the reason.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client as Nats

from deploy.control_plane import ControlPlane
from deploy.guest import GuestImage, default_image_dir
from deploy.lab import Host
from schemas import subjects
from schemas.commands import StartVm
from schemas.ids import uuid7
from schemas.wire import encode, wrap
from tests.fixtures.shown import Shown, blocks, commands, shown, unlike

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DEPLOY = ROOT / "docs/deploy.md"
OPERATING = ROOT / "docs/operating-with-nats.md"
NAMED = re.compile(r"`((?:services|schemas|chassis|vireo|deploy|tests|docs|bench)/[\w./*-]*)`")
PATIENCE_S = 60
READS = (
    "vireo vm list",
    "vireo vm show",
    "vireo host",
    "curl -s http://127.0.0.1:9470",
    "curl -s -H",
)
"""What may be asked again until it shows what is on its way."""

PARSED = {
    "sudo": "changes the machine: users, units, files under /etc",
    "docker": "needs a container engine; test_compose.py holds the file against services and schema",
}


class Terminal:
    """One person's shell beside a running Vireo: what is exported stays for the next command."""

    def __init__(self, plane: ControlPlane, home: Path) -> None:
        self.plane = plane
        self.home = home
        self._variables = home / ".variables"
        bin_dir = home / ".bin"
        bin_dir.mkdir()
        for name, module in (("vireo", ["-m", "vireo.cli"]), ("python", [])):
            program = bin_dir / name
            program.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, *module])} "$@"\n')
            program.chmod(0o755)
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("VIREO_")},
            # `vireo up` kept its context there.
            "XDG_CONFIG_HOME": str(plane.state_dir / "config-home"),
            "PATH": f"{bin_dir}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "200",
        }
        self._environment = environment

    def run(self, command: str) -> str:
        """Output and errors, as a terminal would show them."""
        script = (
            f"set -a; [ -e {self._variables} ] && . {self._variables}\n"
            f"{self.here(command)}\nexport -p > {self._variables}\n"
        )
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.home,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        return done.stdout

    def here(self, command: str) -> str:
        """The command with this run's ports and folders in place of the usual ones."""
        places = {
            "http://127.0.0.1:8470": self.plane.url,
            "127.0.0.1:9470": f"127.0.0.1:{self.plane.prometheus_port}",
            "/var/lib/vireo/": f"{self.plane.state_dir}/",
        }
        for usual, ours in places.items():
            command = command.replace(usual, ours)
        if command == "vireo nats-context":
            command += f" --state-dir {self.plane.state_dir} --nats-port {self.plane.nats_port}"
        return command

    def check(self, expected: Shown, document: Path) -> None:
        """Run a command; fail unless its output has the shape that is shown."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            seen = self.run(expected.command)
            missing = unlike(expected.output, seen)
            if not missing:
                return
            if not expected.command.startswith(READS) or time.monotonic() > deadline:
                pytest.fail(
                    f"{document.name}:{expected.line}: $ {expected.command}\n"
                    f"shows {missing!r}, but this was seen:\n{seen}"
                )


@pytest.fixture(scope="module")
def plane(lab_hosts: tuple[Host, Host], tiny_guest: GuestImage) -> Iterator[ControlPlane]:
    directory = Path(tempfile.mkdtemp(prefix="vireo-readme-"))
    # Reachable for QEMU and Postgres' own users.
    directory.chmod(0o711)
    settings = ("domain_type=qemu", "tick_s=1", "guest_agent.interval_s=1")
    try:
        with ControlPlane(
            directory,
            {host.name: host.uri for host in lab_hosts},
            image_dir=default_image_dir(),
            settings=[f"hostagent.{setting}" for setting in settings],
        ) as plane:
            yield plane
            for vm in plane.get("/v1/vms")["items"]:
                plane.cli("vm", "delete", vm["id"], "--yes")
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def terminal(plane: ControlPlane, tmp_path: Path) -> Terminal:
    return Terminal(plane, tmp_path)


def test_what_the_readme_shows_is_what_one_sees(terminal: Terminal) -> None:
    require("curl")
    terminal.run("vireo context use local")
    for block in blocks(README):
        if block.language == "python":
            name = block.text.splitlines()[0].removeprefix("# ")
            (terminal.home / name).write_text(block.text)
        if block.language != "console":
            continue
        for one in shown(block):
            if one.command == "./dev demo":
                break  # a block of its own commands: the next test runs it
            if one.command.startswith("./dev up"):
                assert unlike(one.output, in_usual_places(terminal.plane)) == ""
            else:
                terminal.check(one, README)


def in_usual_places(plane: ControlPlane) -> str:
    """What `vireo up` said, as if it ran where it runs by default."""
    said = plane.log_end(lines=1000).replace(str(plane.state_dir), "/var/lib/vireo")
    return said.replace(plane.url, "http://127.0.0.1:8470")


def test_the_demo_shows_what_the_readme_says(lab_hosts: tuple[Host, Host]) -> None:
    block = next(b for b in blocks(README) if b.text.startswith("$ ./dev demo\n"))
    done = subprocess.run(
        [ROOT / "dev", "demo"],
        env={**os.environ, "COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    missing = unlike(tuple(line for line in block.text.splitlines()[1:] if line), done.stdout)
    assert missing == "", done.stdout


def test_the_configuration_for_several_hosts_is_written_as_shown(terminal: Terminal) -> None:
    (terminal.home / "admin.token").write_text("vireo_of-another-machine\n")
    own = {"XDG_CONFIG_HOME": str(terminal.home / "config")}
    terminal.run(f"export {' '.join(f'{k}={v}' for k, v in own.items())}")
    for block in blocks(DEPLOY):
        for one in shown(block) if block.language == "console" else []:
            terminal.check(one, DEPLOY)
    copied = [
        word
        for block in blocks(DEPLOY)
        if block.language == "sh"
        for command in commands(block)
        for word in shlex.split(command)
        if word.startswith("deployment/")
    ]
    assert copied
    assert [path for path in copied if not (terminal.home / path).exists()] == []


@pytest.mark.parametrize("document", [README, DEPLOY, OPERATING], ids=lambda path: path.name)
def test_every_command_that_is_not_run_is_known_and_has_a_reason(document: Path) -> None:
    for block in blocks(document):
        if block.language == "sh":
            subprocess.run(["bash", "-n", "-c", block.text], check=True)
            unknown = [c for c in commands(block) if not c.startswith((*PARSED, "nats "))]
            assert unknown == []
        else:
            assert block.language in ("console", "python", "mermaid")


def test_what_is_to_be_copied_and_started_exists() -> None:
    words = [
        word
        for block in blocks(DEPLOY)
        if block.language == "sh"
        for command in commands(block)
        for word in shlex.split(command)
    ]
    units = {word for word in words if word.startswith("deploy/systemd/")}
    assert units == {f"deploy/systemd/{path.name}" for path in (ROOT / "deploy/systemd").iterdir()}
    started = {word for word in words if word.startswith("vireo-")}
    assert {f"deploy/systemd/{name}.service" for name in started} == units


@pytest.mark.parametrize(
    "unit", sorted((ROOT / "deploy/systemd").glob("*.service")), ids=lambda path: path.stem
)
def test_systemd_understands_the_units(unit: Path, tmp_path: Path) -> None:
    require("systemd-analyze")
    text = unit.read_text().replace("/opt/vireo/bin/python", sys.executable)
    copy = tmp_path / unit.name
    # The document's path exists only once a package has put it there.
    copy.write_text("\n".join(line for line in text.splitlines() if "file:///" not in line))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, check=False
    )
    said = [line for line in done.stderr.splitlines() if unit.name in line]
    assert said == []
    parsed = configparser.RawConfigParser(strict=False)
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read(unit)
    assert f"-m services.{unit.stem.removeprefix('vireo-')} " in parsed["Service"]["ExecStart"]


@pytest.mark.parametrize(
    "document", [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")], ids=lambda path: path.stem
)
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [t.split("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [target for target in targets if target and "://" not in target]
    assert [target for target in local if not (document.parent / target).exists()] == []


@pytest.mark.parametrize(
    "document", [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")], ids=lambda path: path.stem
)
def test_files_that_are_named_exist(document: Path) -> None:
    named = NAMED.findall(document.read_text(encoding="utf-8"))
    assert [path for path in named if not list(ROOT.glob(path.rstrip("/")))] == []


# --- natscli ------------------------------------------------------------------------------

Ask = Callable[[Nats, list[str]], Awaitable[Any]]


async def api(connection: Nats, subject: str, body: Any = None) -> dict[str, Any]:
    """A request to JetStream's API. Fails on an error, as natscli would."""
    data = b"" if body is None else json.dumps(body).encode()
    answer: dict[str, Any] = json.loads(
        (await connection.request(f"$JS.API.{subject}", data, 5)).data
    )
    assert "error" not in answer, answer
    return answer


async def gathered(connection: Nats, subject: str, *, silence_s: float = 0.5) -> list[Any]:
    """All answers to one request, until nobody answers any more."""
    inbox = await connection.subscribe(connection.new_inbox())
    await connection.publish(subject, b"", reply=inbox.subject)
    found = []
    try:
        while True:
            found.append(json.loads((await inbox.next_msg(timeout=silence_s)).data))
    except nats.errors.TimeoutError:
        return found


async def micro(connection: Nats, words: list[str]) -> Any:
    verb = {"ls": "PING", "info": "INFO", "stats": "STATS"}[words[0]]
    return {
        answer["name"]
        for answer in await gathered(connection, ".".join(["$SRV", verb, *words[1:]]))
    }


async def stream(connection: Nats, words: list[str]) -> Any:
    if words[0] == "ls":
        return {
            each["config"]["name"] for each in (await api(connection, "STREAM.LIST"))["streams"]
        }
    if words[0] == "info":
        return (await api(connection, f"STREAM.INFO.{words[1]}"))["config"]["description"]
    first = (await api(connection, f"STREAM.INFO.{words[1]}"))["state"]
    if first["messages"] == 0:
        assert words[1] in ("ADVISORIES", "REPLAYS")
        return "nothing there"
    sequence = int(words[2]) if words[0] == "get" else first["first_seq"]
    return (await api(connection, f"STREAM.MSG.GET.{words[1]}", {"seq": sequence}))["message"][
        "subject"
    ]


async def consumer(connection: Nats, words: list[str]) -> Any:
    if words[0] == "ls":
        found = (await api(connection, f"CONSUMER.LIST.{words[1]}"))["consumers"]
        return {each["name"] for each in found}
    if words[0] == "add":
        return await added(connection, words)
    if words[0] == "next":
        return await next_of(connection, words)
    if words[0] == "rm":
        return await api(connection, f"CONSUMER.DELETE.{words[1]}.{words[2]}")
    if words[0] == "unpin":
        return await api(connection, f"CONSUMER.UNPIN.{words[1]}.{words[2]}", {"group": words[3]})
    return (await api(connection, f"CONSUMER.INFO.{words[1]}.{words[2]}"))["config"]["description"]


async def added(connection: Nats, words: list[str]) -> Any:
    options = dict(pairwise(words[3:]))
    config = {
        "name": words[2],
        "durable_name": words[2],
        "filter_subject": options["--filter"],
        "deliver_policy": options["--deliver"],
        "ack_policy": options["--ack"],
        "description": options["--description"],
    }
    wish = {"stream_name": words[1], "action": "create", "config": config}
    made = await api(
        connection, f"CONSUMER.CREATE.{words[1]}.{words[2]}.{config['filter_subject']}", wish
    )
    return made["config"]["ack_policy"] == "explicit"


async def next_of(connection: Nats, words: list[str]) -> Any:
    """One message, acknowledged."""
    inbox = await connection.subscribe(connection.new_inbox())
    await order(connection)
    subject = f"$JS.API.CONSUMER.MSG.NEXT.{words[1]}.{words[2]}"
    await connection.publish(subject, b'{"batch":1,"expires":5000000000}', reply=inbox.subject)
    message = await inbox.next_msg(timeout=10)
    await connection.request(message.reply, b"+ACK", timeout=5)
    return json.loads(message.data)["type"].startswith("vireo.operation.")


async def kv(connection: Nats, words: list[str]) -> Any:
    bucket = await connection.jetstream().key_value(words[1])
    if words[0] == "get":
        entry = await bucket.get(words[2])
        return json.loads(entry.value or b"")
    return set(await bucket.keys())


async def sub(connection: Nats, words: list[str]) -> Any:
    hearing = await connection.subscribe(words[0])
    await connection.flush()
    if "crashed" in words[0] or ".ledger." in words[0]:
        return "quiet"
    if words[0].startswith("vireo.evt"):
        await order(connection)
    message = await hearing.next_msg(timeout=10)
    return json.loads(message.data)


async def order(connection: Nats) -> None:
    """A well-formed wish about a VM that there is not: its refusal is an event."""
    vm, wish = (uuid7(time.time_ns() // 1_000_000, os.urandom(10)) for _ in range(2))
    command = wrap(
        StartVm(vm=vm),
        id=wish,
        about=f"vm/{vm}",
        site="default",
        sender="gateway",
        at=datetime.now(UTC),
    )
    await connection.jetstream().publish(subjects.command(StartVm, site="default"), encode(command))


async def req(connection: Nats, words: list[str]) -> Any:
    answer = await connection.request(words[0], words[1].encode(), timeout=5)
    assert not (answer.headers or {}).get("Nats-Service-Error"), answer.headers
    return json.loads(answer.data)


ASK: dict[str, Ask] = {
    "micro": micro,
    "stream": stream,
    "consumer": consumer,
    "kv": kv,
    "sub": sub,
    "req": req,
}
EVERY_SERVICE = {"gateway", "scheduler", "inventory", "metrics", "hostagent"}
EXPECTED: dict[str, Callable[[Any], bool]] = {
    "micro ls": lambda names: names == EVERY_SERVICE,
    "micro info inventory": lambda names: names == {"inventory"},
    "micro stats inventory": lambda names: names == {"inventory"},
    "stream ls": lambda names: {"COMMANDS", "EVENTS", "DEADLETTERS", "KV_FLEET"} <= names,
    "consumer ls EVENTS": lambda names: "inventory" in names,
    "kv ls LEASES": lambda keys: keys == {"h1", "h2"},
    "kv ls FLEET": lambda keys: "host.facts.h1" in keys,
    "stream get DEADLETTERS 1": lambda subject: subject == "vireo.dlq.COMMANDS.scheduler-default",
}
"""What an answer must be; any answer at all is enough for the others."""


@pytest.mark.parametrize("document", [README, OPERATING], ids=lambda path: path.name)
async def test_what_natscli_is_told_to_ask_is_answered(document: Path, terminal: Terminal) -> None:
    terminal.run("vireo context use local")
    terminal.check(Shown(command="vireo nats-context", output=("wrote …",), line=0), document)
    context = json.loads(
        (terminal.plane.state_dir / "config-home/nats/context/vireo.json").read_text()
    )
    connection = await nats.connect(
        context["url"], user=context["user"], password=context["password"]
    )
    try:
        await one_dead_letter(connection)
        for block in blocks(document):
            for command in commands(block) if block.language == "sh" else []:
                await check_nats(connection, shlex.split(command))
    finally:
        await connection.close()


async def check_nats(connection: Nats, words: list[str]) -> None:
    words = [
        word
        for word in words[1:]
        if word not in ("--raw", "--json", "--force", "--context", "vireo")
    ]
    if words[0] == "pub":
        assert words[1] == "vireo.cmd.default.vm.start"  # what `one_dead_letter` did
        return
    answer = await ASK[words[0]](connection, words[1:])
    expected = EXPECTED.get(" ".join(words), bool)
    assert expected(answer), f"nats {' '.join(words)}: {answer}"


async def one_dead_letter(connection: Nats) -> None:
    """Something that nobody understands, published as an operator may."""
    await connection.jetstream().publish("vireo.cmd.default.vm.start", b"nonsense")
    deadline = time.monotonic() + 10
    while (await api(connection, "STREAM.INFO.DEADLETTERS"))["state"]["messages"] == 0:
        assert time.monotonic() < deadline, "no dead letter came"


def require(program: str) -> None:
    if shutil.which(program) is None:
        if os.environ.get("CI"):
            pytest.fail(f"{program} is missing, and nothing is skipped in CI")
        pytest.skip(f"{program} is not installed")
