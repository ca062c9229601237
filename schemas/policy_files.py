"""Policies as YAML: read with every error at once, each with its line and column.

The document is walked node by node against the fields of `Policy`, so that a mistake does not hide the
next one. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, get_args

import msgspec
import yaml
from msgspec import Struct
from yaml.events import CollectionEndEvent, CollectionStartEvent
from yaml.nodes import MappingNode, Node, ScalarNode

from schemas.policies import Policy, PolicyParameters, SoftRule, Strictness, Term

MAX_BYTES = 64 * 1024
MAX_DEPTH = 8


class PolicyError(Struct, frozen=True):
    """What is wrong and where; lines and columns count from 1."""

    line: int
    column: int
    detail: str

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.detail}"


class BadPolicy(ValueError):
    """All that is wrong with a policy's file."""

    def __init__(self, errors: tuple[PolicyError, ...]) -> None:
        super().__init__("\n".join(map(str, errors)))
        self.errors = errors


def read_policy(text: str) -> Policy:
    """The policy that a YAML document describes. Raises BadPolicy with every error in it."""
    if len(text.encode()) > MAX_BYTES:
        raise BadPolicy((PolicyError(1, 1, f"a policy has at most {MAX_BYTES} bytes"),))
    try:
        _check_depth(text)
        # Composing only: no tag makes an object.
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BadPolicy((_error_at(mark, error.problem or "this is not YAML"),)) from error
    except yaml.YAMLError as error:
        raise BadPolicy((PolicyError(1, 1, f"this is not YAML: {error}"),)) from error
    if node is None:
        raise BadPolicy((PolicyError(1, 1, "the document is empty"),))
    errors: list[PolicyError] = []
    value = _policy(node, errors)
    if errors:
        raise BadPolicy(tuple(sorted(errors, key=lambda error: (error.line, error.column))))
    return msgspec.convert(value, Policy)


def _check_depth(text: str) -> None:
    """Before anything is built: deep nesting costs the reader time by the square, and then its stack."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, CollectionStartEvent):
            depth += 1
        elif isinstance(event, CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise BadPolicy((_error_at(event.start_mark, "it is nested too deeply"),))


Errors = list[PolicyError]
Reader = Callable[[Node, Errors], Any]


def _policy(node: Node, errors: Errors) -> dict[str, Any]:
    found: dict[str, Any] = {}
    seen: set[str] = set()
    for name, key, value in _entries(node, errors, what="a policy"):
        seen.add(name)
        if name not in _FIELDS:
            errors.append(_error(key, f"unknown field {name!r}; there are {_list(_FIELDS)}"))
        else:
            found[name] = _FIELDS[name](value, errors)
    if not isinstance(node, MappingNode):
        return found
    if "name" not in seen:
        errors.append(_error(node, "field 'name' is missing"))
    return found


def _typed(kind: Any) -> Reader:
    """A scalar of a type of the schemas, with its bounds."""

    def read(node: Node, errors: Errors) -> Any:
        try:
            return msgspec.convert(_scalar(node), kind)
        except msgspec.ValidationError as error:
            errors.append(_error(node, str(error)))
            return None

    return read


def _table(names: tuple[str, ...], what: str, read: Reader) -> Reader:
    """A mapping from some of `names`."""

    def read_table(node: Node, errors: Errors) -> dict[str, Any]:
        found = {}
        for name, key, value in _entries(node, errors, what=f"a mapping of {what}s"):
            if name in names:
                found[name] = read(value, errors)
            else:
                errors.append(_error(key, f"unknown {what} {name!r}; there are {_list(names)}"))
        return found

    return read_table


def _parameters(node: Node, errors: Errors) -> dict[str, Any]:
    kinds = {field.name: field.type for field in msgspec.structs.fields(PolicyParameters)}
    found = {}
    for name, key, value in _entries(node, errors, what="a mapping of parameters"):
        if name in kinds:
            found[name] = _typed(kinds[name])(value, errors)
        else:
            errors.append(_error(key, f"unknown parameter {name!r}; there are {_list(kinds)}"))
    return found


def _entries(node: Node, errors: Errors, *, what: str) -> Iterator[tuple[str, Node, Node]]:
    """Key in words, key, value of each entry of a mapping; a repeated key is an error."""
    if not isinstance(node, MappingNode):
        errors.append(_error(node, f"expected {what}"))
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        name = str(key.value) if isinstance(key, ScalarNode) else ""
        if not name:
            errors.append(_error(key, "expected a name"))
        elif name in seen:
            errors.append(_error(key, f"{name!r} stands in line {seen[name]} already"))
        else:
            seen[name] = key.start_mark.line + 1
            yield name, key, value


def _scalar(node: Node) -> Any:
    """A scalar's value by YAML's own rules. Words that YAML takes for something else (`off`) stay words."""
    if not isinstance(node, ScalarNode):
        return None
    if node.tag.endswith((":int", ":float")):
        try:
            value = yaml.SafeLoader("").construct_object(node)
        except (ValueError, OverflowError):
            # A tag may claim a number where there is none.
            return node.value
        return value if math.isfinite(value) else node.value
    return node.value


def _list(names: Any) -> str:
    return ", ".join(sorted(names))


def _error(node: Node, detail: str) -> PolicyError:
    return _error_at(node.start_mark, detail)


def _error_at(mark: Any, detail: str) -> PolicyError:
    line, column = (mark.line, mark.column) if mark else (0, 0)
    return PolicyError(line + 1, column + 1, detail)


def _type_of(name: str) -> Any:
    return next(field.type for field in msgspec.structs.fields(Policy) if field.name == name)


def _value_type(name: str) -> Any:
    return get_args(_type_of(name))[1]


_FIELDS: dict[str, Reader] = {
    "name": _typed(_type_of("name")),
    "version": _typed(_type_of("version")),
    "description": _typed(_type_of("description")),
    "weights": _table(get_args(Term), "score", _typed(_value_type("weights"))),
    "rules": _table(get_args(SoftRule), "rule", _typed(Strictness)),
    "parameters": _parameters,
}
