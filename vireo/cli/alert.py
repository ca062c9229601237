"""`vireo alert`: what fires, the rules and what they find, and silences."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.alerts import AlertRule
from vireo.cli import completion, definition, options, session
from vireo.cli.acting import Waiting, act, waits
from vireo.cli.alert_view import alert_table, rule_table, trial_page
from vireo.cli.definition import is_file, read_file
from vireo.cli.options import examples, parsed
from vireo.cli.printing import Output, show_data, show_page, show_table
from vireo.cli.quantities import seconds

if TYPE_CHECKING:
    from vireo.client import Client

app = definition.rule

Rule = Annotated[
    str,
    typer.Argument(
        help="Name of the rule.", autocompletion=completion.definitions("rules"), metavar="RULE"
    ),
]


@app.command("list", epilog=examples("vireo alert list", "vireo alert list -o json"))
def list_(context: typer.Context, output: options.Output = Output.TABLE) -> None:
    """List what fires, and what may soon."""

    async def body(client: Client) -> None:
        found = [alert async for alert in client.alerts.list()]
        if output.is_data:
            show_data(found, output)
        else:
            show_table(alert_table(found, now=datetime.now(UTC)), empty="nothing fires")

    session.run(context, body)


@app.command(epilog=examples("vireo alert rules", "vireo alert rules -o yaml"))
def rules(context: typer.Context, output: options.Output = Output.TABLE) -> None:
    """List the rules, and which of them are silenced."""

    async def body(client: Client) -> None:
        found = [rule async for rule in client.rules.list()]
        if output.is_data:
            show_data(found, output)
            return
        silences = [silence async for silence in client.alerts.silences()]
        show_table(rule_table(found, silences, now=datetime.now(UTC)), empty="there are no rules")

    session.run(context, body)


@app.command(
    epilog=examples(
        "vireo alert silence host-silent --for 2h --reason 'h1 gets new disks'",
        "vireo alert silence pool-filling --for 30m",
    )
)
@waits
def silence(
    context: typer.Context,
    rule: Rule,
    for_: Annotated[str, typer.Option("--for", help="For how long: 30m, 2h.", metavar="DURATION")],
    reason: Annotated[str, typer.Option(help="Why, for others.", metavar="TEXT")] = "",
    *,
    how: Waiting,
) -> None:
    """Tell nobody of what a rule finds, for some time; events are told all the same."""
    for_s = parsed("--for", seconds, for_)
    act(
        context,
        lambda client: client.alerts.silence(rule, for_s=for_s, reason=reason),
        how,
        name=rule,
    )


@app.command(epilog=examples("vireo alert unsilence host-silent"))
@waits
def unsilence(context: typer.Context, rule: Rule, *, how: Waiting) -> None:
    """Tell of what a rule finds again."""
    act(context, lambda client: client.alerts.unsilence(rule), how, name=rule)


@app.command(
    "test",
    epilog=examples(
        "vireo alert test rule.yaml", "vireo alert test host-silent", "vireo alert test -"
    ),
)
def trial(
    context: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            help="A file, or the name of a rule that there is.",
            autocompletion=completion.definitions("rules"),
            metavar="FILE|NAME",
        ),
    ],
    output: options.Output = Output.TABLE,
) -> None:
    """Show what a rule finds now. Nothing is applied, and nobody is told."""
    draft = read_file(AlertRule, what) if is_file(what) else None

    async def body(client: Client) -> None:
        rule = draft or (await client.rules.get(what)).definition
        assert rule is not None  # only a version asked for by its number may say that it is gone
        found = await client.alerts.try_rule(rule)
        if output.is_data:
            show_data(found, output)
        else:
            show_page(trial_page(rule, found))

    session.run(context, body)
