"""How the record looks when it is searched, and which times are understood."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest

from schemas import samples
from schemas.causes import Effect, EffectTree
from schemas.changes import Changed, ChangedBy, FieldChange
from schemas.problems import put_away
from schemas.wire import encode, read_header
from vireo.cli.audit_file import written
from vireo.cli.audit_view import diff_table, log_table, tree_lines
from vireo.cli.exits import Exit, code_of, error_text
from vireo.cli.quantities import moment
from vireo.errors import NotFound, error_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-02-28", datetime(2026, 2, 28, tzinfo=UTC)),
        ("2026-02-28T10:30", datetime(2026, 2, 28, 10, 30, tzinfo=UTC)),
        ("2026-02-28T10:30:00.5Z", datetime(2026, 2, 28, 10, 30, 0, 500_000, tzinfo=UTC)),
        (
            "2026-02-28T10:30+01:00",
            datetime(2026, 2, 28, 10, 30, tzinfo=timezone(timedelta(hours=1))),
        ),
        ("90s", NOW - timedelta(seconds=90)),
        ("2h", NOW - timedelta(hours=2)),
        ("3d", NOW - timedelta(days=3)),
        ("1w", NOW - timedelta(weeks=1)),
    ],
)
def test_times_are_given_or_counted_back(text: str, expected: datetime) -> None:
    assert moment(text, now=NOW) == expected


@pytest.mark.parametrize("text", ["yesterday", "5", "2x", "", "-2h", "2026-13-01"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no time|no quantity"):
        moment(text, now=NOW)


def test_a_time_long_ago_is_a_time() -> None:
    assert moment("99999999999d", now=NOW) < datetime(1800, 1, 1, tzinfo=UTC)


def test_events_are_lines_with_who_and_what() -> None:
    said = samples.enveloped(next(m for m in samples.MESSAGES if hasattr(m, "reason")))
    header = read_header(encode(said))
    narrow = log_table([header], wide=False)
    assert narrow.columns == ("time", "event", "about", "actor", "by", "detail")
    (row,) = log_table([header], wide=True).rows
    assert row[1] == said.type.split(".", 1)[1].rpartition(".")[0]
    assert row[-2:] == (said.operation or "-", said.id)


def test_a_file_comes_to_its_place_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "web1.jsonl"
    with written(file) as out:
        out.write(b"whole")
    with pytest.raises(EOFError), written(file) as out:
        out.write(b"half")
        raise EOFError
    assert [each.name for each in tmp_path.iterdir()] == ["web1.jsonl"]
    assert file.read_bytes() == b"whole"


def test_what_is_no_plain_file_is_written_to_as_it_goes() -> None:
    with written(Path("/dev/null")) as out:
        out.write(b"gone")
    assert Path("/dev/null").is_char_device()


def test_who_asks_for_what_is_in_files_is_told_where_they_are_listed() -> None:
    body = encode(put_away("Rows 1 to 10 were put away."))
    error = error_of(410, {}, body)
    assert isinstance(error, NotFound)
    assert code_of(error) == Exit.NOT_FOUND
    assert error_text(error, url="http://x").splitlines() == [
        "error: These events are not in the database any more",
        "  Rows 1 to 10 were put away.",
        "hint: vireo audit archives",
    ]


def effect(name: str, at_ms: float, *effects: Effect, **more: str) -> Effect:
    return Effect(
        what="event",
        id=f"id of {name}",
        name=name,
        at=NOW,
        elapsed_ms=at_ms,
        effects=effects,
        **more,
    )


def test_a_tree_shows_what_came_of_what_and_when() -> None:
    root = Effect(
        what="operation",
        id="op",
        name="vm.create",
        at=NOW,
        elapsed_ms=0,
        about="vm/1",
        phase="succeeded",
        actor="token/anna",
        effects=(
            effect("operation.accepted", 0, source="gateway"),
            effect("vm.scheduled", 12, effect("vm.defined", 40), cause="elsewhere"),
        ),
    )
    tree = EffectTree(root=root, operations=1, events=3, whole=True)
    assert list(tree_lines(tree, wide=False)) == [
        "            vm.create  vm/1  succeeded, by token/anna  op, 2026-03-01 12:00:00 UTC",
        "     +0 ms  ├─ operation.accepted  gateway",
        "    +12 ms  └─ vm.scheduled  (because of elsewhere)",
        "    +40 ms     └─ vm.defined",
    ]


def test_a_difference_is_a_line_for_each_field_and_one_for_what_came_or_went() -> None:
    by = ChangedBy(operation=samples.OPERATION, command="vm.stop", actor="token/anna", at=NOW)
    changed = Changed(
        kind="vm",
        id=samples.VM,
        name="web-1",
        change="changed",
        fields=(
            FieldChange(field="spec/cpus", before=1, after=2),
            FieldChange(field="state", before="running", after="stopped"),
        ),
        by=(by,),
    )
    gone = Changed(kind="host", id="h1", name="h1", change="deleted")
    assert diff_table([changed, gone], wide=False).rows == (
        ("vm", "web-1", "spec/cpus", "1", "2", "vm.stop", "token/anna"),
        ("vm", "web-1", "state", "running", "stopped", "vm.stop", "token/anna"),
        ("host", "h1", "deleted", "-", "-", "-", "-"),
    )
    assert msgspec.json.decode(encode(changed))["fields"][0]["after"] == 2
