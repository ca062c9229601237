"""How plans look: the page of one, and what differs between two. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from schemas.plans import Imbalance, Move, Plan
from vireo.cli import words
from vireo.cli.layout import Page, Section, Table

MOVES = ("order", "vm", "from", "to", "memory", "copied", "gain", "why")
DIFF = ("", "vm", "from", "to", "was")


def plan_page(plan: Plan) -> Page:
    sections = [_what(plan), _imbalance(plan)]
    if plan.moves:
        sections.append(_moves(plan))
    if plan.stays:
        sections.append(_stays(plan))
    return Page(title=f"{plan.kind} plan: {plan.detail}", sections=tuple(sections))


def diff_table(old: Plan, new: Plan) -> Table:
    """The moves that one plan has and the other has not, and those that go elsewhere."""
    return Table(columns=DIFF, rows=tuple(_differences(old, new)))


def diff_summary(old: Plan, new: Plan) -> str:
    moves = f"moves {len(old.moves)} → {len(new.moves)}"
    copied = f"to copy {words.of_mib(old.cost_mib)} → {words.of_mib(new.cost_mib)}"
    after = f"imbalance after {old.after.total:.4f} → {new.after.total:.4f}"
    return f"{moves}, {copied}, {after}"


def _differences(old: Plan, new: Plan) -> Iterable[tuple[str, ...]]:
    before = {move.vm: move for move in old.moves}
    after = {move.vm: move for move in new.moves}
    for vm, move in before.items():
        if vm not in after:
            yield ("-", move.name, move.from_host, move.to_host, words.NOTHING)
    for vm, move in after.items():
        earlier = before.get(vm)
        if earlier is None:
            yield ("+", move.name, move.from_host, move.to_host, words.NOTHING)
        elif _way(earlier) != _way(move):
            yield ("~", move.name, move.from_host, move.to_host, " to ".join(_way(earlier)))


def _way(move: Move) -> tuple[str, str]:
    return move.from_host, move.to_host


def _what(plan: Plan) -> Section:
    band = words.NOTHING
    if plan.band is not None:
        most = plan.band.max_moves
        band = f"above {plan.band.start:g} down to {plan.band.stop:g}, {most} moves at most"
    facts = (
        ("id", plan.id),
        ("made", words.when(plan.made_at)),
        ("site", plan.site),
        ("host" if plan.host else "band", plan.host or band),
        ("outcome", plan.outcome),
        ("policies", words.listed(tuple(f"{n} {v}" for n, v in plan.policies.items()))),
        ("moves", str(len(plan.moves))),
        ("to copy", words.of_mib(plan.cost_mib)),
    )
    return Section(title="Plan", facts=facts)


def _imbalance(plan: Plan) -> Section:
    def row(name: str, imbalance: Imbalance) -> tuple[str, ...]:
        parts = (imbalance.total, imbalance.cpu, imbalance.memory, imbalance.load)
        return (name, *(words.NOTHING if part is None else f"{part:.4f}" for part in parts))

    rows = (row("before", plan.before), row("after", plan.after))
    columns = ("imbalance", "total", "cpu", "memory", "load")
    return Section(title="Imbalance", table=Table(columns=columns, rows=rows))


def _moves(plan: Plan) -> Section:
    rows = tuple(
        (
            str(number),
            move.name,
            move.from_host,
            move.to_host,
            words.of_mib(move.memory_mib),
            f"{words.of_mib(move.cost_mib)} {'live' if move.live else 'stopped'}",
            f"{move.gain:.4f}" if plan.kind == "balance" else words.NOTHING,
            move.reason,
        )
        for number, move in enumerate(plan.moves, start=1)
    )
    return Section(title="Moves", table=Table(columns=MOVES, rows=rows))


def _stays(plan: Plan) -> Section:
    rows = tuple(
        (
            one.name,
            ", ".join(f"{count} by {rule}" for rule, count in one.excluded_by.items()),
            one.excluded[0].host if one.excluded else words.NOTHING,
            one.excluded[0].detail if one.excluded else one.detail,
        )
        for one in plan.stays
    )
    columns = ("vm", "hosts excluded", "nearest", "why not there")
    return Section(title="Stay where they are", table=Table(columns=columns, rows=rows))
