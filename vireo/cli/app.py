"""The tree of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from vireo.cli import (
    alert,
    audit,
    capacity,
    completion,
    context,
    definition,
    diff,
    event,
    fleet,
    guest_agent,
    host,
    init,
    inventory,
    operation,
    plan,
    policy_trial,
    replay,
    top,
    up,
    vm,
)
from vireo.cli.options import examples

_UP = examples(
    "vireo up",
    "vireo up --host h1=qemu:///system --image-dir /var/lib/vireo/images",
    "vireo up --host local=test:///default --set hostagent.tick_s=2",
)

app = typer.Typer(
    name="vireo",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    # Plain help: it reads the same in a pipe, and rich would double the time that --help takes.
    rich_markup_mode=None,
    # A traceback must never show the values of variables: a token may be among them.
    pretty_exceptions_enable=False,
)
app.command("up", epilog=_UP)(up.up)
app.add_typer(vm.app, name="vm")
app.add_typer(host.app, name="host")
definition.policy.command("test", epilog=policy_trial.EXAMPLES)(policy_trial.trial)
app.add_typer(definition.policy, name="policy")
app.add_typer(definition.template, name="template")
app.add_typer(definition.project, name="project")
app.add_typer(alert.app, name="alert")
app.command("top", epilog=top.EXAMPLES)(top.top)
app.command("capacity", epilog=capacity.EXAMPLES)(capacity.capacity)
app.add_typer(plan.balance, name="balance")
app.add_typer(plan.app, name="plan")
app.add_typer(operation.app, name="operation")
app.add_typer(event.app, name="event")
app.add_typer(audit.app, name="audit")
app.command("diff", epilog=diff.EXAMPLES)(diff.diff)
app.command("replay", epilog=replay.EXAMPLES)(replay.replay)
app.add_typer(inventory.app, name="inventory")
app.add_typer(fleet.app, name="fleet")
app.add_typer(context.app, name="context")
app.add_typer(guest_agent.app, name="guest-agent")
app.command(
    "init",
    epilog=examples(
        "vireo init deployment --host h1 --host h2 --nats-url tls://bus.example.org:4222 \\",
        "    --nats-listen 0.0.0.0 --nats-tls /etc/nats/tls --postgres-host db.example.org",
    ),
)(init.init)
app.command(
    "nats-context", epilog=examples("vireo nats-context", "nats --context vireo stream ls")
)(up.nats_context)


@app.callback(
    epilog=examples(
        "vireo up",
        "vireo vm create web1 --image tiny --memory 128MiB",
        "vireo vm show web1",
        "vireo --context home vm list -o json",
    )
)
def vireo(
    context: typer.Context,
    chosen: Annotated[
        str | None,
        typer.Option(
            "--context",
            help="The context to use, instead of the current one.",
            envvar="VIREO_CONTEXT",
            metavar="NAME",
            autocompletion=completion.contexts,
        ),
    ] = None,
) -> None:
    """Vireo runs fleets of virtual machines.

    The gateway's address and the token come from a context, or from VIREO_URL and VIREO_TOKEN.

    \b
    Exit codes: 0 ok, 1 failed, 2 usage, 3 authentication, 4 not found,
                5 conflict, 6 timeout
    """
    context.obj = chosen


@app.command(epilog=examples("vireo version"))
def version() -> None:
    """Show the version of this command."""
    from importlib.metadata import version as version_of

    typer.echo(f"vireo {version_of('vireo')}")
