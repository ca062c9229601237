"""`vireo alert`: what fires, the rules, and silences."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from vireo.cli import options, session
from vireo.cli.acting import Waiting, act, waits
from vireo.cli.layout import Table
from vireo.cli.options import examples, parsed
from vireo.cli.printing import Output, show_data, show_table
from vireo.cli.quantities import seconds
from vireo.cli.words import NOTHING, age, duration

if TYPE_CHECKING:
    from schemas.alerts import Alert, AlertRule, Silence
    from vireo.client import Client

app = typer.Typer(help="Alerts.", no_args_is_help=True, rich_markup_mode=None)

Rule = Annotated[str, typer.Argument(help="Name of the rule.", metavar="RULE")]


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
    """List the rules, with those of which nobody is told."""

    async def body(client: Client) -> None:
        found = [rule async for rule in client.alerts.rules()]
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


def alert_table(alerts: list[Alert], *, now: datetime) -> Table:
    return Table(
        columns=("rule", "severity", "state", "since", "value", "what"),
        rows=tuple(
            (
                alert.rule,
                alert.severity,
                f"{alert.phase}, silenced" if alert.silenced else alert.phase,
                age(alert.since, now),
                f"{alert.value:g}",
                alert.summary,
            )
            for alert in alerts
        ),
    )


def rule_table(rules: list[AlertRule], silences: list[Silence], *, now: datetime) -> Table:
    silent = {each.rule: (each.until - now).total_seconds() for each in silences}
    return Table(
        columns=("rule", "severity", "bad if", "for", "silent for"),
        rows=tuple(
            (
                rule.name,
                rule.severity,
                condition(rule),
                duration(rule.for_s) if rule.for_s else NOTHING,
                duration(silent[rule.name]) if rule.name in silent else NOTHING,
            )
            for rule in rules
        ),
    )


def condition(rule: AlertRule) -> str:
    """`vireo_host_online < 1`, as a person reads it."""
    what = rule.event or rule.metric or ""
    if rule.of is not None:
        what = f"{what} / {rule.of}"
    if rule.age:
        what = f"age of {what}"
    if rule.grown_within_s:
        what = f"{what} in {duration(rule.grown_within_s)}"
    edge = f"> {rule.above:g}" if rule.above is not None else f"< {rule.below:g}"
    return f"{what} {edge}"
