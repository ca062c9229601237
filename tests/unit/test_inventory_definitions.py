"""What becomes of a wish to apply or remove a definition, and what is said of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from schemas import commands, events
from schemas.alerts import AlertRule
from schemas.definitions import Project, Quota, Template
from schemas.policies import MOST_VERSIONS, Policy
from schemas.wire import unwrap
from services.inventory.definition_messages import said_of
from services.inventory.definitions import (
    Identity,
    Kept,
    Outcome,
    Surroundings,
    decide,
    forecast,
    references,
)
from tests.fixtures.inventory import SITE, START, id_of
from tests.fixtures.kept_definitions import ordered

QUIET = Policy(name="quiet", weights={"free_cpu": 2.0})
NAME = Identity(kind="policy", name="quiet")


def live(version: int, **changes: Any) -> Kept:
    policy = msgspec.structs.replace(QUIET, version=version, **changes)
    return Kept(last=version, live=policy)


def applied(given: Policy, **around: Any) -> Outcome:
    return decide(commands.ApplyPolicy(definition=given), Surroundings(**around), at=START)


def removed(**around: Any) -> Outcome:
    return decide(commands.RemovePolicy(name="quiet"), Surroundings(**around), at=START)


def detail(outcome: Outcome) -> str:
    assert outcome.change == "refused"
    assert outcome.problem is not None
    return outcome.problem.detail


@pytest.mark.parametrize(
    ("given", "kept", "version"),
    [
        (0, Kept(), 1),
        (7, Kept(), 7),
        (0, Kept(last=4), 5),
        (0, live(3, description="other"), 4),
        (9, live(3, description="other"), 9),
        (9, live(3), 9),
    ],
)
def test_versions_are_counted_or_as_the_file_says(given: int, kept: Kept, version: int) -> None:
    outcome = applied(msgspec.structs.replace(QUIET, version=given), kept=kept)
    assert (outcome.change, outcome.version) == ("applied", version)
    assert msgspec.convert(outcome.definition, Policy).version == version


@pytest.mark.parametrize("given", [0, 3])
def test_what_says_the_same_changes_nothing(given: int) -> None:
    outcome = applied(msgspec.structs.replace(QUIET, version=given), kept=live(3))
    assert outcome == Outcome(identity=NAME, change="unchanged", version=3, at=START)


@pytest.mark.parametrize("given", [1, 3])
def test_a_version_that_is_not_newer_is_a_conflict(given: int) -> None:
    policy = msgspec.structs.replace(QUIET, version=given, description="changed")
    outcome = applied(policy, kept=live(3))
    assert detail(outcome) == (
        f"Version {given} is not newer than 3, the newest of the policy 'quiet'; "
        "leave `version` out, or say 4 or more."
    )


def test_what_cannot_be_meant_is_refused_whoever_asks_for_it() -> None:
    rule = AlertRule(name="hot", metric="vireo_heat", above=1, below=2, summary="hot")
    command = commands.ApplyRule(definition=rule)
    outcome = decide(command, Surroundings(kept=Kept()), at=START)
    assert detail(outcome) == (
        "/metric: there is no metric vireo_heat; /above: expected either `above` or `below`"
    )


def test_versions_end_with_a_refusal() -> None:
    assert "used up" in detail(applied(QUIET, kept=Kept(last=MOST_VERSIONS)))


def test_there_may_be_only_so_many() -> None:
    assert "as many" in detail(applied(QUIET, kept=Kept(), crowded=True))


def test_what_a_definition_names_must_exist() -> None:
    template = Template(name="web", policy="quiet", project="shop")
    command = commands.ApplyTemplate(definition=template)
    assert [*references(template)] == [
        ("/policy", NAME),
        ("/project", Identity(kind="project", name="shop")),
    ]
    around = Surroundings(kept=Kept(), unknown=("/policy", "/project"))
    outcome = decide(command, around, at=START)
    assert outcome.problem is not None
    assert outcome.problem.status == 422
    assert [(error.field, error.detail) for error in outcome.problem.errors] == [
        ("/policy", "there is no policy 'quiet'"),
        ("/project", "there is no project 'shop'"),
    ]


def test_a_removal_is_a_version_too() -> None:
    outcome = removed(kept=live(3))
    assert outcome == Outcome(identity=NAME, change="removed", version=4, at=START)


def test_what_is_in_use_stays_and_says_by_whom() -> None:
    users = tuple(f"project p{number}" for number in range(6))
    assert detail(removed(kept=live(3), users=users)) == (
        "The policy 'quiet' is in use by "
        "project p0, project p1, project p2, project p3, project p4 and others."
    )


def test_a_shipped_policy_stays_and_what_lies_over_it_may_go() -> None:
    shipped = Kept(last=1, live=QUIET, shipped=True)
    assert "comes with Vireo" in detail(removed(kept=shipped, shipped_beneath=True))
    over = removed(kept=live(2), users=("project shop",), shipped_beneath=True)
    assert over.change == "removed"


def test_what_is_not_there_cannot_be_removed() -> None:
    outcome = removed(kept=Kept(last=2))
    assert outcome.problem is not None
    assert outcome.problem.status == 404


def test_an_outcome_is_said_with_ids_that_stay_the_same() -> None:
    project = Project(name="shop", quota=Quota(vms=3))
    command = ordered(1, commands.ApplyProject(definition=project))
    outcome = decide(command.data, Surroundings(kept=Kept()), at=START)
    said = said_of(outcome, command, site=SITE)
    assert said == said_of(outcome, command, site=SITE)
    assert [message.subject for message in said] == [
        f"vireo.evt.{SITE}.inventory.project.shop.applied",
        f"vireo.evt.{SITE}.inventory.operation.{id_of(1)}.succeeded",
    ]
    told = [unwrap(message.data) for message in said]
    assert [each.operation for each in told] == [id_of(1)] * 2
    assert told[0].data == events.ProjectApplied(
        definition=msgspec.structs.replace(project, version=1)
    )
    assert told[1].data == events.OperationSucceeded(detail="version 1")


def test_a_refusal_ends_the_operation_with_its_reason() -> None:
    command = ordered(1, commands.RemovePolicy(name="quiet"))
    outcome = decide(command.data, Surroundings(kept=Kept()), at=START)
    (message,) = said_of(outcome, command, site=SITE)
    assert unwrap(message.data).data == events.OperationFailed(problem=outcome.problem)  # type: ignore[arg-type]


def test_a_forecast_says_which_fields_would_change() -> None:
    command = commands.ApplyPolicy(
        definition=msgspec.structs.replace(QUIET, weights={"packed": 1.0}, description="new")
    )
    around = Surroundings(kept=live(3))
    found = forecast(command, around, decide(command, around, at=START))
    assert (found.command, found.kind, found.target) == ("policy.apply", "policy", "quiet")
    assert found.detail == "version 4"
    assert [(one.field, one.before, one.after) for one in found.changes] == [
        ("description", None, "new"),
        ("weights", {"free_cpu": 2.0}, {"packed": 1.0}),
    ]


def test_a_forecast_of_a_refusal_is_its_problem() -> None:
    command = commands.RemovePolicy(name="quiet")
    around = Surroundings(kept=live(3), users=("project shop",))
    outcome = decide(command, around, at=START)
    found = forecast(command, around, outcome)
    assert (found.problem, found.changes, found.detail) == (outcome.problem, (), "")
