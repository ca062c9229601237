"""Conditions on labels: asked of one dict of labels (VMs), or compiled to a boolean column (hosts).

A `Selector` is labels and expressions in a form that can be a key, so that equal conditions share what
was compiled for them. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from msgspec import Struct

from schemas.rules import LabelExpression, whole_number
from services.scheduler.columns import NO_VALUE, Bools, Columns

CACHED_SELECTORS = 64


class Selector(Struct, frozen=True, gc=False):
    """All must hold. `pairs` are sorted; `expressions` stand as they were given."""

    pairs: tuple[tuple[str, str], ...] = ()
    expressions: tuple[LabelExpression, ...] = ()


def selector(labels: Mapping[str, str], expressions: tuple[LabelExpression, ...] = ()) -> Selector:
    return Selector(tuple(sorted(labels.items())), expressions)


def matches(chosen: Selector, labels: Mapping[str, str]) -> bool:
    for key, value in chosen.pairs:
        if labels.get(key) != value:
            return False
    if not chosen.expressions:
        return True
    return all(holds(one, labels.get(one.key)) for one in chosen.expressions)


def holds(expression: LabelExpression, value: str | None) -> bool:
    """Whether an expression holds for the value that its key has, None if it has none."""
    match expression.operator:
        case "in":
            return value in expression.values
        case "not_in":
            return value not in expression.values
        case "exists":
            return value is not None
        case "not_exists":
            return value is None
    number, bound = whole_number(value or ""), whole_number(expression.values[0])
    if number is None or bound is None:
        return False
    return number > bound if expression.operator == "greater" else number < bound


class HostLabels:
    """The hosts' labels as columns of codes, and selectors over them as cached boolean columns."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._codes: dict[str, list[str]] = {}
        """Label key → its values, by code."""
        self._code_of: dict[tuple[str, str], int] = {}
        self._cached: dict[Selector, Bools] = {}

    def copy(self, columns: Columns) -> HostLabels:
        """The same over a copy of the columns. What is compiled is never changed, and so shared."""
        twin = HostLabels(columns)
        twin._codes = {key: values.copy() for key, values in self._codes.items()}
        twin._code_of = self._code_of.copy()
        twin._cached = self._cached.copy()
        return twin

    def of(self, row: int) -> dict[str, str]:
        """A host's labels."""
        found = {}
        for key, values in self._codes.items():
            code = int(self._columns.codes("label", key)[row])
            if code != NO_VALUE:
                found[key] = values[code]
        return found

    def put(self, row: int, labels: Mapping[str, str]) -> None:
        """A host's labels as they are now."""
        codes = {key: self._code(key, value) for key, value in labels.items()}
        self._columns.put(row, "codes", "label", codes)
        self.forget_cached()

    def forget_cached(self) -> None:
        """Hosts came, moved or changed their labels."""
        self._cached.clear()

    def column(self, chosen: Selector) -> Bools:
        """For every host, whether the selector holds."""
        found = self._cached.get(chosen)
        if found is None:
            found = self._compile(chosen)
            while len(self._cached) >= CACHED_SELECTORS:
                self._cached.pop(next(iter(self._cached)))
            self._cached[chosen] = found
        return found

    def domains(self, key: str) -> tuple[np.ndarray[tuple[int], np.dtype[np.int32]], int]:
        """For every host, the code of its value of a label (-1: none); and how many codes there are."""
        codes = self._columns.codes("label", key)[: len(self._columns)]
        return codes, len(self._codes.get(key, ()))

    def _code(self, key: str, value: str) -> int:
        code = self._code_of.get((key, value))
        if code is None:
            values = self._codes.setdefault(key, [])
            code = self._code_of[key, value] = len(values)
            values.append(value)
        return code

    def _compile(self, chosen: Selector) -> Bools:
        result = np.ones(len(self._columns), np.bool_)
        for key, value in chosen.pairs:
            result &= self._one(LabelExpression(key=key, operator="in", values=(value,)))
        for expression in chosen.expressions:
            result &= self._one(expression)
        return result

    def _one(self, expression: LabelExpression) -> Bools:
        """Decided once per value of the label, then looked up per host; the last is for no value."""
        values = self._codes.get(expression.key, [])
        decided = [holds(expression, value) for value in values] + [holds(expression, None)]
        codes, _ = self.domains(expression.key)
        found: Bools = np.array(decided, np.bool_)[codes]
        return found
