"""When silence is evidence: only while others are heard."""

from __future__ import annotations

from services.scheduler.fleet import Fleet
from services.scheduler.model import Limits
from services.scheduler.silence import newly_silent, returned
from tests.fixtures.scheduler import facts, fleet_of

LIMITS = Limits(lease_s=10.0, alone_patience_s=30.0)


def heard(*hosts: str) -> Fleet:
    return fleet_of(*(facts(host) for host in hosts), renewed_at=None)


def renew(fleet: Fleet, host: str, *, start: float, until: float) -> None:
    at = start
    while at <= until:
        fleet.heard_lease(host, at=at, lease_s=LIMITS.lease_s)
        at += 3.0


def silent_at(
    fleet: Fleet, now: float, *, already: frozenset[str] = frozenset(), since: float = 0.0
) -> dict[str, float]:
    return newly_silent(
        fleet.hosts(),
        silent=already,
        listening_since={host.name: since for host in fleet.hosts()},
        now=now,
        limits=LIMITS,
    )


def test_a_host_is_silent_when_its_lease_ran_out_and_another_renews() -> None:
    fleet = heard("h1", "h2")
    renew(fleet, "h1", start=0, until=30)
    renew(fleet, "h2", start=0, until=12)
    assert silent_at(fleet, 22) == {}
    assert silent_at(fleet, 30) == {"h2": 18.0}


def test_it_is_told_once() -> None:
    fleet = heard("h1", "h2")
    renew(fleet, "h1", start=0, until=30)
    assert silent_at(fleet, 30, already=frozenset({"h2"})) == {}


def test_nobody_is_silent_when_all_fall_silent_together() -> None:
    fleet = heard("h1", "h2")
    renew(fleet, "h1", start=0, until=30)
    renew(fleet, "h2", start=0, until=30)
    assert silent_at(fleet, 300) == {}


def test_nobody_is_silent_after_the_bus_was_away_until_others_renewed_for_a_lease() -> None:
    fleet = heard("h1", "h2")
    renew(fleet, "h1", start=0, until=30)
    renew(fleet, "h2", start=0, until=30)
    fleet.hear_anew()
    renew(fleet, "h1", start=90, until=99)
    assert silent_at(fleet, 101, since=90.0) == {}
    renew(fleet, "h1", start=102, until=102)
    assert silent_at(fleet, 102, since=90.0) == {"h2": 12.0}


def test_a_witness_must_have_renewed_without_a_gap() -> None:
    fleet = heard("h1", "h2")
    renew(fleet, "h1", start=0, until=9)
    renew(fleet, "h1", start=60, until=66)
    assert silent_at(fleet, 66) == {}


def test_a_host_that_is_alone_is_given_more_patience() -> None:
    fleet = heard("h1")
    renew(fleet, "h1", start=0, until=9)
    assert silent_at(fleet, 39) == {}
    assert silent_at(fleet, 40) == {"h1": 31.0}


def test_a_silent_host_returns_with_its_next_renewal() -> None:
    fleet = heard("h1", "h2")
    renew(fleet, "h1", start=50, until=50)
    silent = frozenset({"h1", "h2"})
    assert returned(fleet.hosts(), silent=silent, now=51, limits=LIMITS) == ("h1",)
