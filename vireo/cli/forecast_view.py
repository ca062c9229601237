"""How forecasts look: the page of a dry run, of why a VM is where it is, of how many more fit. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from schemas.forecasts import Capacity, Change, Displaced, Forecast, PlacementReview, PolicyTrial
from schemas.resources import Excluded
from vireo.cli import words
from vireo.cli.layout import Page, Section, Table
from vireo.cli.vm_view import excluded_section, placement_sections


def forecast_page(forecast: Forecast, *, name: str) -> Page:
    return Page(
        title=f"{forecast.command} {name}: {_in_short(forecast)}; nothing was done",
        sections=tuple(_forecast_sections(forecast)),
    )


def review_page(review: PlacementReview) -> Page:
    sections = placement_sections(review.placement) if review.placement is not None else []
    if review.now is not None:
        facts = (("now", _now_in_short(review)),)
        sections.append(Section(title="Decided anew", facts=facts))
        sections += _forecast_sections(review.now, changes=False, why="Why there, now")
    return Page(title=f"{review.name}: on {review.host}", sections=tuple(sections))


def trial_page(trial: PolicyTrial, *, name: str) -> Page:
    """A policy beside the one that counts: where each would place the VM, and why the first would."""
    facts = ((f"by {name}", _where(trial.given)), (_in_force(trial), _where(trial.in_force)))
    sections = [
        Section(title="Where", facts=facts),
        *_forecast_sections(trial.given, changes=False),
    ]
    return Page(
        title=f"policy {name}: {_compared(trial)}; nothing was done", sections=tuple(sections)
    )


def capacity_page(capacity: Capacity) -> Page:
    sections = []
    if capacity.count is not None:
        sections += _capacity_sections(capacity)
    if capacity.displaced is not None:
        sections += _displaced_sections(capacity.displaced)
    return Page(title=_capacity_title(capacity), sections=tuple(sections))


# trials of policies


def _compared(trial: PolicyTrial) -> str:
    given, in_force = trial.given, trial.in_force
    if given.problem is not None:
        return "the VM would fit nowhere"
    if given.host == in_force.host:
        return f"the VM would go to {given.host}, as it would now"
    return f"the VM would go to {given.host}, not to {in_force.host or 'nowhere'}"


def _in_force(trial: PolicyTrial) -> str:
    placement = trial.in_force.placement
    if placement is None:
        return "now"
    return f"now by {placement.policy} {placement.policy_version or ''}".rstrip()


def _where(forecast: Forecast) -> str:
    placement = forecast.placement
    if placement is None:
        return "nowhere"
    ranked = ", ".join(f"{scored.host} {scored.score:.3f}" for scored in placement.ranking)
    return f"{placement.host} ({ranked})"


# dry runs


def _in_short(forecast: Forecast) -> str:
    if forecast.problem is not None:
        return "would be refused"
    if forecast.placement is not None:
        return f"would go to {forecast.host}"
    where = f" on {forecast.host}" if forecast.host and forecast.kind == "vm" else ""
    if forecast.changes or forecast.detail:
        return f"would be done{where}"
    return "would change nothing"


def _now_in_short(review: PlacementReview) -> str:
    now = review.now
    if now is None or now.problem is not None:
        return "it would fit nowhere"
    return "it would stay" if now.host == review.host else f"it would go to {now.host}"


def _forecast_sections(
    forecast: Forecast, *, changes: bool = True, why: str = "Why this host"
) -> list[Section]:
    sections = []
    if forecast.detail:
        sections.append(Section(title="How", facts=(("detail", forecast.detail),)))
    if forecast.problem is not None:
        facts = (("title", forecast.problem.title), ("detail", forecast.problem.detail))
        sections.append(Section(title="Why not", facts=facts))
        sections += _nowhere(forecast.excluded_by, forecast.excluded)
    if changes and forecast.changes:
        sections.append(_changes(forecast.changes))
    if forecast.placement is not None:
        sections += placement_sections(forecast.placement, title=why)
    return sections


def _changes(changes: Sequence[Change]) -> Section:
    rows = tuple((one.field, _value(one.before), _value(one.after)) for one in changes)
    table = Table(columns=("field", "before", "after"), rows=rows)
    return Section(title="What would change", table=table)


def _value(value: Any) -> str:
    """A field's value in a cell: names and numbers as they are, tables as pairs."""
    if value in (None, [], {}, ()):
        return words.NOTHING
    match value:
        case bool():
            return "yes" if value else "no"
        case dict():
            return ", ".join(f"{key}={_value(part)}" for key, part in value.items())
        case list() | tuple():
            return "; ".join(_value(part) for part in value)
    return str(value)


def _nowhere(counts: Mapping[Any, int], excluded: Sequence[Excluded]) -> list[Section]:
    return [excluded_section(counts, excluded, title="Why not there")] if counts or excluded else []


# capacity


def _capacity_title(capacity: Capacity) -> str:
    if capacity.count is None:
        return "If these hosts were taken away"
    at_least = "" if capacity.complete else "at least "
    verb = "fits" if capacity.count == 1 and capacity.complete else "fit"
    return f"{at_least}{capacity.count or 'no'} more {verb}"


def _capacity_sections(capacity: Capacity) -> list[Section]:
    facts = [("site", capacity.site), ("policy", f"{capacity.policy} {capacity.policy_version}")]
    if capacity.project is not None:
        facts.append(("project", capacity.project))
    if not capacity.complete:
        facts.append(("bound", "counting stopped here; more may fit"))
    sections = [Section(title="Counted", facts=tuple(facts))]
    if capacity.by is not None:
        rows = tuple(
            (one.value if one.value is not None else words.NOTHING, str(one.hosts), str(one.count))
            for one in capacity.values
        )
        table = Table(columns=(capacity.by, "hosts", "more"), rows=rows)
        sections.append(Section(title=f"By {capacity.by}", table=table))
    if capacity.hosts:
        sections.append(_by_host(capacity))
    if capacity.over_quota or capacity.excluded_by:
        sections.append(_stops(capacity))
    return sections


def _stops(capacity: Capacity) -> Section:
    title = "What stops the next one"
    by_hosts = excluded_section(capacity.excluded_by, capacity.excluded, title=title)
    quota = tuple(("quota", broken) for broken in capacity.over_quota)
    return Section(title=title, facts=(*quota, *by_hosts.facts), table=by_hosts.table)


def _by_host(capacity: Capacity) -> Section:
    rows = tuple((room.host, str(room.count)) for room in capacity.hosts)
    facts = (("hosts with room", str(capacity.hosts_with_room)),)
    title = "By host, whatever the quota" if capacity.over_quota else "By host"
    return Section(title=title, facts=facts, table=Table(columns=("host", "more"), rows=rows))


def _displaced_sections(displaced: Displaced) -> list[Section]:
    facts = (
        ("on them", _vms(displaced.vms)),
        ("fit elsewhere", _vms(displaced.placed)),
        ("fit nowhere", _vms(displaced.vms - displaced.placed)),
    )
    rows = tuple(
        (one.name, one.host, one.detail, words.listed(_nearest(one.excluded)))
        for one in displaced.stuck
    )
    columns = ("vm", "host", "why not elsewhere", "nearest")
    table = Table(columns=columns, rows=rows) if rows else None
    return [Section(title="VMs of the hosts taken away", facts=facts, table=table)]


def _nearest(excluded: Sequence[Excluded]) -> tuple[str, ...]:
    return tuple(f"{one.host}: {one.detail}" for one in excluded[:1])


def _vms(count: int) -> str:
    return f"{count} VM{'' if count == 1 else 's'}"
