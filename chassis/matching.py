"""NATS subjects against patterns (`*` is one token, a last `>` one or more). Pure."""

from __future__ import annotations

from collections.abc import Sequence


def matches(pattern: str, subject: str) -> bool:
    """Whether a subject without wildcards falls under `pattern`."""
    if "*" not in pattern and ">" not in pattern:
        return pattern == subject
    wanted, tokens = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted = wanted[:-1]
        return len(tokens) > len(wanted) and _tokens_match(wanted, tokens)
    return len(tokens) == len(wanted) and _tokens_match(wanted, tokens)


def matches_any(patterns: Sequence[str], subject: str) -> bool:
    """Whether one of the patterns covers the subject; no patterns cover every subject."""
    return not patterns or any(matches(pattern, subject) for pattern in patterns)


def _tokens_match(wanted: Sequence[str], tokens: Sequence[str]) -> bool:
    return all(want in ("*", token) for want, token in zip(wanted, tokens, strict=False))


class Written:
    """The subjects written so far, with a quick answer to: does this pattern cover one of them?

    Patterns of the two usual forms (no wildcard; a wildcard as the last token) cost one lookup.
    """

    def __init__(self) -> None:
        self._subjects: set[str] = set()
        self._parents: set[str] = set()

    def add(self, subject: str) -> None:
        self._subjects.add(subject)
        self._parents.add(subject.rpartition(".")[0])

    def covered_by(self, pattern: str) -> bool:
        parent, _, last = pattern.rpartition(".")
        if last == "*" and "*" not in parent:
            return parent in self._parents
        if "*" not in pattern and last != ">":
            return pattern in self._subjects
        return any(matches(pattern, subject) for subject in sorted(self._subjects))
