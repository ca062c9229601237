"""How an event changes a host's row. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from schemas import events
from services.inventory.columns import json_of, labels_column, labels_in, site_of
from services.inventory.model import Fact, HostRow


def new_host(fact: Fact, name: str) -> HostRow:
    return HostRow(
        name=name, site=site_of(fact.envelope), registered_at=fact.at, updated_at=fact.at
    )


def host_after(row: HostRow, fact: Fact) -> HostRow:
    row = HOST_CHANGES[type(fact.envelope.data)](row, fact)
    return replace(row, updated_at=max(row.updated_at, fact.at))


def _registered(row: HostRow, fact: Fact) -> HostRow:
    row = _host_state(row, fact, "online")
    if fact.position <= row.facts_position:
        return row
    facts = fact.envelope.data.facts
    return replace(
        row,
        site=facts.site,
        facts=json_of(facts),
        labels=labels_column({**facts.labels, **labels_in(row.config)}),
        facts_position=fact.position,
        registered_at=row.registered_at if row.facts else fact.at,
    )


def _host_configured(row: HostRow, fact: Fact) -> HostRow:
    config = fact.envelope.data.config
    if config.generation < row.config_generation:
        return row
    return replace(
        row,
        config=json_of(config),
        config_generation=config.generation,
        labels=labels_column({**labels_in(row.facts), **config.labels}),
    )


def _host_state(row: HostRow, fact: Fact, state: str) -> HostRow:
    if fact.position <= row.state_position:
        return row
    return replace(row, state=state, state_position=fact.position)


HOST_CHANGES: dict[type[Any], Callable[[HostRow, Fact], HostRow]] = {
    events.HostRegistered: _registered,
    events.HostConfigured: _host_configured,
    events.HostSilent: lambda row, fact: _host_state(row, fact, "silent"),
    events.HostReturned: lambda row, fact: _host_state(row, fact, "online"),
}
