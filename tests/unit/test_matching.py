"""Which subjects a pattern covers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.matching import Written, matches, matches_any


@pytest.mark.parametrize(
    ("pattern", "subject", "covered"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("*.b", "a.b", True),
        ("a.>", "a.b", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        ("a.*.>", "a.b.c", True),
        ("a.*.>", "a.b", False),
    ],
)
def test_a_pattern_covers_what_nats_says(pattern: str, subject: str, covered: bool) -> None:
    assert matches(pattern, subject) is covered


def test_no_patterns_cover_everything() -> None:
    assert matches_any((), "a.b")
    assert not matches_any(("a.*",), "b.b")


token = st.sampled_from(["a", "b", "c"])
subject = st.lists(token, min_size=1, max_size=4).map(".".join)
pattern = st.builds(
    lambda tokens, tail: ".".join([*tokens, *tail]),
    st.lists(st.sampled_from(["a", "b", "c", "*"]), min_size=1, max_size=3),
    st.sampled_from([[], [">"]]),
)


@given(st.lists(subject, max_size=6), pattern)
def test_what_was_written_is_found_as_by_looking_at_each(subjects: list[str], over: str) -> None:
    written = Written()
    for name in subjects:
        written.add(name)

    assert written.covered_by(over) == any(matches(over, name) for name in subjects)
