"""Whatever changes something can be asked first what would come of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from services.gateway.route import Route
from services.gateway.routes import ROUTES
from vireo import Client
from vireo.cli.app import app
from vireo.client import DryRun

CHANGING = [route for route in ROUTES if route.writes]


@pytest.mark.parametrize("route", CHANGING, ids=lambda route: route.name)
def test_every_route_that_changes_something_takes_dry_run(route: Route[Any, Any]) -> None:
    assert "dry_run" in route.query.__struct_fields__


def commands(group: Any, way: tuple[str, ...] = ()) -> Iterator[tuple[str, set[str]]]:
    """Every command and its options."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*way, name))
        else:
            options = {option for one in command.params for option in one.opts}
            yield " ".join((*way, name)), options


def test_every_command_that_begins_an_operation_takes_dry_run() -> None:
    options = dict(commands(typer.main.get_command(app)))
    waiting = {name for name, known in options.items() if "--wait" in known}
    beginning = waiting - {"operation show"}
    assert {name for name in beginning if "--dry-run" not in options[name]} == set()
    assert {"vm create", "vm delete", "host set"} <= beginning


async def test_the_dry_run_of_a_client_has_the_same_rooms() -> None:
    async with Client("http://127.0.0.1:1") as client:
        dry = vars(client.dry_run)
        assert isinstance(client.dry_run, DryRun)
        assert all(type(room) is type(getattr(client, name)) for name, room in dry.items())
        assert {"vms", "hosts"} <= dry.keys()
