"""`vireo up` and `vireo nats-context`: everything on this machine, and the way in for natscli."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tomllib
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vireo.cli import session
from vireo.cli.exits import Exit
from vireo.cli.options import as_name, parsed
from vireo.cli.printing import note, show_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vireo.standalone.options import HostOption, UpOptions
    from vireo.standalone.up import Ready

LOCAL = "local"
"""The context that `vireo up` keeps for what it starts."""

StateDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIRECTORY",
        help="Where state is kept across restarts; by default VIREO_STATE_DIR, else"
        " /var/lib/vireo for root and ~/.local/state/vireo for others.",
    ),
]
NatsPort = Annotated[
    int, typer.Option(metavar="PORT", min=1, max=65_535, help="Port of NATS, on loopback.")
]


def up(
    host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=URI",
            help="A hypervisor by its libvirt URI; may be repeated. This machine's by default.",
        ),
    ] = None,
    state_dir: StateDir = None,
    site: Annotated[str, typer.Option(metavar="NAME", help="Name of the site.")] = "default",
    address: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where the gateway listens.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", min=1, max=65_535, help="The gateway's port.")
    ] = 8470,
    nats_port: NatsPort = 4222,
    metrics_port: Annotated[
        int,
        typer.Option(
            metavar="PORT", min=0, max=65_535, help="Where Prometheus scrapes; 0: nowhere."
        ),
    ] = 9470,
    image_dir: Annotated[
        Path | None, typer.Option(metavar="DIRECTORY", help="Where base images lie.")
    ] = None,
    log_level: Annotated[
        str, typer.Option(metavar="LEVEL", help="debug, info, warning, error.")
    ] = "info",
    system_user: Annotated[
        str,
        typer.Option(
            metavar="USER",
            help="Whom Postgres runs as when root starts this; made if there is none.",
        ),
    ] = "vireo",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SERVICE.KEY=VALUE",
            help="A setting of a service, like hostagent.domain_type=qemu; may be repeated.",
        ),
    ] = None,
) -> None:
    """Start everything on this machine and stay; Ctrl-C stops it and leaves guests running."""
    from vireo.standalone.options import UpOptions, default_state_dir

    root = os.geteuid() == 0
    options = UpOptions(
        state_dir=(state_dir or default_state_dir(os.environ, root=root)).absolute(),
        hosts=_hosts(host or (), root=root),
        site=parsed("--site", as_name, site),
        gateway_address=address,
        gateway_port=port,
        nats_port=nats_port,
        metrics_port=metrics_port,
        image_dir=None if image_dir is None else image_dir.absolute(),
        log_level=log_level,
        system_user=system_user,
        settings=parsed("--set", settings_of, set_ or ()),
    )
    _run(options)


def nats_context(state_dir: StateDir = None, nats_port: NatsPort = 4222) -> None:
    """Write a context for natscli, so that 'nats --context vireo' reaches the bus of 'vireo up'."""
    from vireo.standalone.options import default_state_dir
    from vireo.standalone.up import UpError, write_nats_context

    directory = state_dir or default_state_dir(os.environ, root=os.geteuid() == 0)
    try:
        file = write_nats_context(directory, nats_port=nats_port, environ=os.environ)
    except (UpError, OSError) as error:
        session.refuse(str(error), hint="start it first: vireo up", code=Exit.FAILED)
    show_lines([f"wrote {file}", "try: nats --context vireo stream ls"])


def settings_of(pairs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`SERVICE.KEY=VALUE` each, deeper keys with more dots; a value as in TOML, else a string."""
    found: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        path, equals, value = pair.partition("=")
        keys = path.split(".")
        if not equals or len(keys) < 2 or not all(keys):
            raise ValueError(f"{pair!r} is no SERVICE.KEY=VALUE")
        table: dict[str, Any] = found
        for key in keys[:-1]:
            table = table.setdefault(key, {})
            if not isinstance(table, dict):
                raise ValueError(f"{path!r}: {key!r} is a value already")
        table[keys[-1]] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    # More than one key means that the text brought lines of its own.
    return table["value"] if len(table) == 1 else text


def _hosts(given: Sequence[str], *, root: bool) -> tuple[HostOption, ...]:
    from vireo.standalone.hypervisors import this_machine
    from vireo.standalone.options import host_option

    hosts = tuple(parsed("--host", host_option, text) for text in given)
    names = [host.name for host in hosts]
    if len(set(names)) != len(names):
        raise typer.BadParameter("two hosts have one name", param_hint="--host")
    return hosts or (this_machine(root=root),)


def _run(options: UpOptions) -> None:
    from vireo.standalone.binaries import ProgramMissing
    from vireo.standalone.postgres import PostgresUnusable
    from vireo.standalone.supervisor import ChildFailed
    from vireo.standalone.up import UpError
    from vireo.standalone.up import up as start

    first = not options.admin_token_file.exists()

    async def announce(ready: Ready) -> None:
        _announce(ready, first=first)

    note(f"starting in {options.state_dir}: {', '.join(_told(options))}")
    try:
        asyncio.run(start(options, announce))
    except (UpError, ChildFailed, PostgresUnusable, ProgramMissing, OSError) as error:
        logs = options.state_dir / "logs"
        session.refuse(str(error), hint=f"the logs are in {logs}", code=Exit.FAILED)
    note("stopped; guests and state are as they were")


def _told(options: UpOptions) -> list[str]:
    return [f"host {host.name} at {host.uri}" for host in options.hosts]


def _announce(ready: Ready, *, first: bool) -> None:
    shown = f"token     in {ready.admin_token_file}"
    if first and sys.stdout.isatty():
        # Once, to the person who sits before it; never into a log.
        shown += f"\n          {ready.admin_token_file.read_text(encoding='ascii').strip()}"
    if ready.metrics_url is not None:
        shown += f"\nmetrics   {ready.metrics_url}"
    sys.stdout.write(f"gateway   {ready.url}\n{shown}\nlogs      {ready.log_dir}\n")
    for host in ready.missing:
        log = ready.log_dir / f"hostagent-{host}.log"
        sys.stdout.write(f"warning   host {host} takes no VMs yet: {log} says why\n")
    for line in _next(_keep_context(ready)):
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _next(vireo: str) -> list[str]:
    return [
        "",
        "next, in another terminal:",
        f"  {vireo} host list",
        f"  {vireo} vm create web1 --image tiny --memory 128MiB",
        f"  {vireo} vm show web1",
        f"  {vireo} event tail",
        "",
        "Ctrl-C stops everything; guests go on.",
    ]


def _keep_context(ready: Ready) -> str:
    """Keep the context `local` for what runs now; how `vireo` is called to reach it."""
    from vireo.contexts import Context, ContextError, contexts_file, load, save

    path = contexts_file(os.environ)
    program = _program()
    token = f'"$(cat {quote(str(ready.admin_token_file))})"'
    without = f"VIREO_URL={ready.url} VIREO_TOKEN={token} {program}"
    try:
        old = load(path)
        context = Context(url=ready.url, token_file=str(ready.admin_token_file))
        known = old.contexts.get(LOCAL)
        if known is not None and known.token is not None:
            note(f"warning: the context {LOCAL!r} is somebody's own; it was left as it is")
            return without
        new = old.with_context(LOCAL, context, use=False)
        if new != old:
            save(path, new)
    except ContextError as error:
        note(f"warning: no context was kept: {error}")
        return without
    return program if new.current == LOCAL else f"{program} --context {LOCAL}"


def _program() -> str:
    """This command as one has to type it: by its path where the shell doesn't find it by name."""
    called = Path(sys.argv[0])
    found = shutil.which(called.name)
    if called.name != "vireo" or (found and Path(found).resolve() == called.resolve()):
        return "vireo"
    return quote(sys.argv[0])
