"""The command `vireo` as a process of its own, against a gateway on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
import yaml
from msgspec import Struct

from schemas.events import VmStarted
from schemas.forecasts import Forecast
from schemas.problems import Problem, conflict
from schemas.resources import DiskSpec, Host, Operation, Vm, VmSpec
from schemas.wire import encode, wrap
from tests.fixtures.gateway_standin import (
    NOW,
    TOKEN,
    Gateway,
    away,
    host,
    id_of,
    losing,
    refusal,
    serving,
)

SPEC = VmSpec(name="web1", cpus=1, memory_mib=128, disks=(DiskSpec(size_gib=10, image="tiny"),))
CREATE = ("vm", "create", "web1", "--image", "tiny", "--memory", "128MiB", "--disk", "10GiB")


class Ended(Struct, frozen=True):
    code: int
    out: str
    err: str


class Shell:
    """Where commands run: an environment with a home of its own and the address of a gateway."""

    def __init__(self, home: Path, url: str) -> None:
        self.url = url
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "VIREO_URL": url,
            "VIREO_TOKEN": TOKEN,
            "COLUMNS": "160",
            "NO_COLOR": "1",
        }

    async def start(self, *arguments: str, **environ: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "vireo.cli",
            *arguments,
            env={**self.environ, **environ},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments: str, stdin: str = "", **environ: str) -> Ended:
        process = await self.start(*arguments, **environ)
        async with asyncio.timeout(30):
            out, err = await process.communicate(stdin.encode())
        assert process.returncode is not None
        ended = Ended(process.returncode, out.decode(), err.decode())
        assert TOKEN not in ended.out + ended.err
        return ended

    async def on_terminal(self, *arguments: str, typed: str = "") -> Ended:
        """With a terminal for everything; what it shows is in `out`."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "vireo.cli",
            *arguments,
            env={**self.environ, "TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        os.write(ours, typed.encode())
        reading = asyncio.create_task(asyncio.to_thread(_read_all, ours))
        async with asyncio.timeout(30):
            code = await process.wait()
            shown = await reading
        os.close(ours)
        return Ended(code, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown), "")


def _read_all(terminal: int) -> str:
    shown = b""
    # A terminal whose other end is closed answers with an error instead of an end.
    with contextlib.suppress(OSError):
        while piece := os.read(terminal, 65536):
            shown += piece
    return shown.decode()


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest_asyncio.fixture
async def shell(gateway: Gateway, tmp_path: Path) -> AsyncIterator[Shell]:
    async with serving(gateway) as url:
        yield Shell(tmp_path, url)


async def test_a_vm_is_created_and_its_steps_are_told(shell: Shell) -> None:
    ended = await shell.run(*CREATE, "--label", "app=shop", "--on", "h1")
    assert ended == Ended(
        0,
        "vm.create web1: succeeded on h1 in 30 ms\n",
        "+     0 ms  operation.accepted  gateway\n"
        "+    10 ms  vm.scheduled  scheduler  on h1\n"
        "+    20 ms  vm.started  h1\n"
        "+    30 ms  operation.succeeded  h1\n",
    )


async def test_what_is_sent_is_what_was_typed(shell: Shell, gateway: Gateway) -> None:
    await shell.run(*CREATE, "--cpus", "1", "--label", "app=shop", "--network", "lan", "--no-wait")
    assert json.loads(gateway.requests[0].body) == {
        "name": "web1",
        "cpus": 1,
        "memory_mib": 128,
        "disks": [{"name": "root", "image": "tiny", "size_gib": 10}],
        "nics": [{"network": "lan"}],
        "labels": {"app": "shop"},
    }


async def test_a_vm_is_created_from_a_file_on_standard_input(shell: Shell) -> None:
    text = "name: web1\ncpus: 2\ndisks: [{image: tiny}]\n"
    ended = await shell.run("vm", "create", "-f", "-", "-q", "-o", "json", stdin=text)
    assert (ended.code, ended.err) == (0, "")
    assert msgspec.json.decode(ended.out, type=Operation).phase == "succeeded"


async def test_without_waiting_the_operation_is_told(shell: Shell, gateway: Gateway) -> None:
    ended = await shell.run(*CREATE, "--no-wait")
    operation = next(iter(gateway.operations))
    assert ended.out == f"vm.create web1: accepted (operation {operation})\n"


async def test_an_answer_lost_on_the_way_makes_no_second_vm(shell: Shell, gateway: Gateway) -> None:
    async with losing(shell.url, answers=1) as (url, _):
        ended = await shell.run(*CREATE, VIREO_URL=url)
    posts = [request for request in gateway.requests if request.method == "POST"]
    assert ended.code == 0
    assert len(posts) == 2
    assert posts[0] == posts[1]
    assert len(gateway.vms) == 1


async def test_json_and_yaml_are_exactly_the_resource(shell: Shell, gateway: Gateway) -> None:
    gateway.add_vm(SPEC)
    vm = next(iter(gateway.vms.values()))
    shown = await shell.run("vm", "show", "web1", "-o", "json")
    assert msgspec.json.decode(shown.out, type=Vm) == vm
    assert json.loads(shown.out) == json.loads(msgspec.json.encode(vm))
    shown = await shell.run("vm", "show", "web1", "-o", "yaml")
    assert yaml.safe_load(shown.out) == json.loads(msgspec.json.encode(vm))
    listed = await shell.run("vm", "list", "-o", "json")
    assert msgspec.json.decode(listed.out, type=list[Vm]) == [vm]
    listed = await shell.run("host", "list", "-o", "json")
    assert msgspec.json.decode(listed.out, type=list[Host]) == [host()]


async def test_a_list_in_a_pipe_is_plain_columns(shell: Shell, gateway: Gateway) -> None:
    gateway.add_vm(SPEC)
    listed = await shell.run("vm", "list")
    header, row = listed.out.splitlines()
    assert header.split() == ["NAME", "STATE", "HOST", "ADDRESS", "CPUS", "MEMORY", "AGE"]
    assert row.split()[:7] == ["web1", "running", "h1", "192.0.2.7", "1", "128", "MiB"]


async def test_a_page_tells_all_about_a_vm(shell: Shell, gateway: Gateway) -> None:
    gateway.add_vm(SPEC)
    shown = (await shell.run("vm", "show", "web1")).out
    assert shown.startswith("web1: running on h1\n")
    for text in (
        "addresses   192.0.2.7",
        "10 GiB, tiny",
        "Tiny Linux 1",
        "0.50 0.25 0.12",
        "64 MiB available of 128 MiB",
        "/           ext4  1 MiB  1 GiB",
        "64 MiB free, 128 MiB needed",
        "Last operation",
    ):
        assert text in shown


async def test_a_terminal_gets_a_bar_and_a_table(shell: Shell, gateway: Gateway) -> None:
    gateway.looks_to_end = 3
    created = await shell.on_terminal(*CREATE)
    assert created.code == 0
    assert "accepted" in created.out
    assert "vm.create web1: succeeded on h1" in created.out
    listed = await shell.on_terminal("vm", "list")
    assert re.search(r"NAME +STATE +HOST", listed.out)
    assert re.search(r"web1 +running +h1", listed.out)
    shown = await shell.on_terminal("vm", "show", "web1")
    assert "Why this host" in shown.out


async def test_a_terminal_is_asked_before_a_vm_is_deleted(shell: Shell, gateway: Gateway) -> None:
    gateway.add_vm(SPEC)
    refused = await shell.on_terminal("vm", "delete", "web1", typed="n\n")
    assert refused.code == 1
    assert gateway.requests == []
    agreed = await shell.on_terminal("vm", "delete", "web1", typed="y\n")
    assert agreed.code == 0
    assert gateway.requests[0].method == "DELETE"


@pytest.mark.parametrize("verb", ["start", "stop", "reboot", "pause", "resume", "delete"])
async def test_every_action_reaches_its_vm(verb: str, shell: Shell, gateway: Gateway) -> None:
    gateway.add_vm(SPEC)
    ended = await shell.run("vm", verb, "web1", "-q")
    assert (ended.code, ended.out) == (0, f"vm.{verb} web1: succeeded on h1 in 30 ms\n")


async def test_a_host_is_shown_and_set(shell: Shell, gateway: Gateway) -> None:
    shown = (await shell.run("host", "show", "h1")).out
    assert re.search(r"memory +8 GiB +512 MiB +7.5 GiB", shown)
    ended = await shell.run(
        "host", "set", "h1", "--maintenance", "--label", "tier=1", "--remove-label", "rack", "-q"
    )
    assert ended.code == 0
    patch = next(request for request in gateway.requests if request.method == "PATCH")
    assert json.loads(patch.body) == {
        "maintenance": True,
        "labels": {"tier": "1"},
        "generation": 3,
    }


async def test_a_dry_run_shows_what_would_come_and_begins_nothing(
    shell: Shell, gateway: Gateway
) -> None:
    told = await shell.run(*CREATE, "--dry-run")
    assert (told.code, told.err) == (0, "")
    assert told.out.startswith("vm.create web1: would go to h1; nothing was done\n")
    assert "Why not there" in told.out
    gateway.add_vm(SPEC)
    before = dict(gateway.operations)
    for command in (("vm", "delete", "web1"), ("host", "set", "h1", "--maintenance")):
        ended = await shell.run(*command, "--dry-run", "-o", "json")
        assert msgspec.json.decode(ended.out, type=Forecast).changes
    assert gateway.operations == before


async def test_what_would_be_refused_ends_a_dry_run_as_the_refusal_would(
    shell: Shell, gateway: Gateway
) -> None:
    gateway.add_vm(SPEC)
    gateway.fails_with = conflict("VM web1 is being deleted.")
    ended = await shell.run("vm", "stop", "web1", "--dry-run")
    assert (ended.code, ended.err) == (5, "")
    assert "VM web1 is being deleted." in ended.out


async def test_why_a_vm_is_where_it_is_and_how_many_more_fit(
    shell: Shell, gateway: Gateway
) -> None:
    gateway.add_vm(SPEC)
    assert "Why this host" in (await shell.run("vm", "why", "web1")).out
    counted = await shell.run("capacity", "--image", "tiny", "--without", "h1", "--add", "3*h1")
    assert counted.out.startswith("3 more fit\n")
    assert json.loads(gateway.requests[-1].body) == {
        "spec": {"name": "copy", "disks": [{"name": "root", "image": "tiny"}]},
        "without": ["h1"],
        "add": [{"count": 3, "like": "h1"}],
    }
    assert (await shell.run("capacity")).code == 2


async def test_taints_and_tuning_are_set_one_by_one(shell: Shell, gateway: Gateway) -> None:
    ended = await shell.run(
        *("host", "set", "h1", "--taint", "gpu=a100", "--reserve-memory", "4GiB", "-q"),
        *("--unset", "weight"),
    )
    assert ended.code == 0, ended.err
    patch = next(request for request in gateway.requests if request.method == "PATCH")
    assert json.loads(patch.body) == {
        "taints": [{"key": "gpu", "value": "a100"}],
        "tuning": {"reserve_memory_mib": 4096},
        "generation": 3,
    }


async def test_an_operation_shows_its_trail_and_the_reasons(shell: Shell, gateway: Gateway) -> None:
    gateway.add_vm(SPEC)
    operation = next(iter(gateway.operations))
    shown = (await shell.run("operation", "show", operation)).out
    assert re.search(r"12:00:00\.020 +20 ms +\+10 ms +vm\.started +h1", shown)
    assert re.search(r"h2 +memory +64 MiB free", shown)
    listed = (await shell.run("operation", "list", "-o", "wide")).out
    assert operation in listed


async def test_events_are_shown_as_they_come(shell: Shell, gateway: Gateway) -> None:
    event = wrap(
        VmStarted(vm=id_of(1), host="h1", generation=1),
        id=id_of(9),
        site="home",
        sender="h1",
        at=NOW,
        about=f"vm/{id_of(1)}",
    )
    gateway.events = [encode(event)] * 3
    gateway.events_per_connection = 2
    plain = await shell.run("event", "tail", "--count", "1")
    assert plain.out.startswith("12:00:00.000  vm.started")
    as_json = await shell.run("event", "tail", "-o", "json", "--count", "3")
    assert as_json.out.encode() == (encode(event) + b"\n") * 3


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("vm", "show", "web9"), 4, "There is no vm 'web9'."),
        (("host", "show", "h9"), 4, "vireo host list"),
        (("operation", "show", id_of(77)), 4, "No such operation"),
        (("vm", "create", "web1"), 2, "--image"),
        (("vm", "create", "--image", "tiny"), 2, "NAME"),
        ((*CREATE, "--memory", "12 parsecs"), 2, "unit"),
        ((*CREATE, "--label", "x"), 2, "KEY=VALUE"),
        ((*CREATE, "--timeout", "soon"), 2, "--timeout"),
        ((*CREATE, "-o", "xml"), 2, "--output"),
        (("vm", "explode", "web1"), 2, "explode"),
        (("host", "set", "h1"), 2, "nothing to set"),
        (("--context", "nowhere", "vm", "list"), 2, "no context 'nowhere'"),
    ],
)
async def test_errors_have_codes_and_hints(
    arguments: tuple[str, ...], code: int, said: str, shell: Shell
) -> None:
    ended = await shell.run(*arguments)
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err
    assert "Traceback" not in ended.err


async def test_every_bad_field_stands_on_a_line_of_its_own(shell: Shell) -> None:
    ended = await shell.run(*CREATE, "--cpus", "9999", "--memory", "99TiB")
    assert ended == Ended(
        2,
        "",
        "error: The request is not valid\n"
        "  /cpus        at most 512\n"
        "  /memory_mib  at most 16777216\n"
        "hint: mend what is named above; --help shows what is understood\n",
    )


async def test_what_is_bad_in_a_file_is_told_with_its_line(shell: Shell, tmp_path: Path) -> None:
    spec = tmp_path / "web.yaml"
    spec.write_text("name: web1\n\ncpus: 9999\non:\n  not_on: [h2]\ndisks: [{image: tiny}]\n")

    ended = await shell.run("vm", "create", "-f", str(spec), "--memory", "99TiB")

    assert ended.code == 2
    assert f"  /cpus        at most 512 ({spec}, line 3)\n" in ended.err
    assert "  /memory_mib  at most 16777216\n" in ended.err


async def test_no_good_token_is_code_3(shell: Shell) -> None:
    ended = await shell.run("vm", "list", VIREO_TOKEN="another")
    assert ended.code == 3
    assert "request: r-1" in ended.err
    assert "VIREO_TOKEN" in ended.err


async def test_a_conflict_is_code_5(shell: Shell, gateway: Gateway) -> None:
    gateway.add_vm(SPEC)
    assert (await shell.run(*CREATE)).code == 5


async def test_an_operation_that_fails_is_code_1_and_says_why(
    shell: Shell, gateway: Gateway
) -> None:
    gateway.fails_with = Problem(
        type="urn:vireo:problem:unplaceable",
        title="No host can take the VM",
        status=409,
        reasons={"h1": "memory: 64 MiB free, 128 MiB needed", "host2": "in maintenance"},
    )
    ended = await shell.run(*CREATE, "-q")
    operation = next(iter(gateway.operations))
    assert ended == Ended(
        1,
        "",
        "error: No host can take the VM\n"
        "  h1     memory: 64 MiB free, 128 MiB needed\n"
        "  host2  in maintenance\n"
        f"hint: vireo operation show {operation}\n",
    )


async def test_a_wait_that_is_over_is_code_6(shell: Shell, gateway: Gateway) -> None:
    gateway.looks_to_end = 1_000_000
    ended = await shell.run(*CREATE, "--timeout", "50ms")
    assert ended.code == 6
    assert "it goes on" in ended.err


async def test_a_server_that_stays_away_is_code_1(shell: Shell, gateway: Gateway) -> None:
    gateway.refuses_next = [away()] * 20
    ended = await shell.run("vm", "list")
    assert ended.code == 1
    assert "vireo up" in ended.err


async def test_names_cannot_steer_the_terminal(shell: Shell, gateway: Gateway) -> None:
    problem = Problem(type="about:blank", title="bad \x1b[2J thing", status=418)
    gateway.refuses_next = [refusal(problem)]
    ended = await shell.run("vm", "list")
    assert "\x1b" not in ended.err


async def test_interrupting_a_wait_leaves_the_operation(shell: Shell, gateway: Gateway) -> None:
    gateway.looks_to_end = 1_000_000
    process = await shell.start(*CREATE)
    await until(lambda: any(gateway.looks.values()))
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(30):
        _, err = await process.communicate()
    assert process.returncode == 130
    assert f"goes on: vireo operation show {next(iter(gateway.operations))}" in err.decode()


async def test_contexts_are_kept_used_and_shown_without_tokens(
    shell: Shell, tmp_path: Path
) -> None:
    none = {"VIREO_URL": "", "VIREO_TOKEN": ""}
    kept = await shell.run(
        "context", "set", "home", "--url", shell.url, "--token-stdin", stdin=TOKEN, **none
    )
    assert kept.code == 0
    assert (await shell.run("vm", "list", "-o", "json", **none)).out == "[]\n"
    (tmp_path / "token").write_text(TOKEN)
    await shell.run(
        "context", "set", "edge", "--url", shell.url, "--token-file", f"{tmp_path}/token", **none
    )
    await shell.run("context", "use", "edge", **none)
    listed = await shell.run("context", "list", **none)
    assert [line.split()[:2] for line in listed.out.splitlines()] == [
        ["NAME", "URL"],
        ["*", "edge"],
        ["home", shell.url],
    ]
    shown = await shell.run("context", "show", **none)
    assert f"in {tmp_path}/token" in shown.out
    assert (await shell.run("vm", "list", **none)).code == 0
    assert (await shell.run("context", "remove", "edge", **none)).code == 0
    assert (await shell.run("context", "show", "edge", **none)).code == 2


async def test_a_context_that_moves_forgets_its_token(shell: Shell) -> None:
    none = {"VIREO_URL": "", "VIREO_TOKEN": ""}
    await shell.run(
        "context", "set", "a", "--url", "http://192.0.2.1", "--token-stdin", stdin=TOKEN, **none
    )
    await shell.run("context", "set", "a", "--url", shell.url, **none)
    assert (await shell.run("vm", "list", **none)).code == 3


async def test_a_file_that_others_may_read_is_warned_of(shell: Shell, tmp_path: Path) -> None:
    await shell.run("context", "set", "home", "--url", shell.url, "--token-stdin", stdin=TOKEN)
    (tmp_path / "config" / "vireo" / "contexts.toml").chmod(0o644)
    ended = await shell.run("vm", "list")
    assert ended.code == 0
    assert "chmod 600" in ended.err


async def test_the_shell_completes_names(shell: Shell, gateway: Gateway) -> None:
    gateway.add_vm(SPEC)

    async def completed(line: str, **environ: str) -> list[str]:
        ended = await shell.run(
            _VIREO_COMPLETE="complete_bash",
            COMP_WORDS=line,
            COMP_CWORD=str(len(line.split(" ")) - 1),
            **environ,
        )
        return ended.out.split()

    assert await completed("vireo vm show w") == ["web1"]
    assert await completed("vireo vm list --host ") == ["h1"]
    assert await completed("vireo vm sh") == ["show"]
    assert await completed("vireo vm show w", VIREO_TOKEN="another") == []


async def test_every_command_has_help_with_examples(shell: Shell) -> None:
    commands = [
        *(("vm", verb) for verb in ("create", "list", "show", "why", "start", "stop", "reboot")),
        *(("vm", verb) for verb in ("pause", "resume", "delete")),
        *(("host", verb) for verb in ("list", "show", "set")),
        *(("operation", verb) for verb in ("list", "show")),
        *(("context", verb) for verb in ("list", "use", "set", "show", "remove")),
        *((name,) for name in ("up", "capacity", "init", "nats-context", "version")),
        ("event", "tail"),
    ]
    for command in commands:
        ended = await shell.run(*command, "--help")
        assert ended.code == 0, command
        assert f"  vireo {' '.join(command)}" in ended.out, command


async def test_the_version_is_told(shell: Shell) -> None:
    assert re.fullmatch(r"vireo \d+\.\d+\.\d+\S*\n", (await shell.run("version")).out)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)
