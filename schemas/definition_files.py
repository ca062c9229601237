"""What people define as YAML: read with every error at once, each with its line and column.

The document is walked node by node along the type's fields, so that a mistake does not hide the next one.
Pure.
"""

from __future__ import annotations

import math
import types
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
import yaml
from msgspec import Meta, Struct
from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from schemas.definition_faults import faults_of
from schemas.definitions import AnyDefinition
from schemas.policies import Policy
from schemas.problems import FieldError

MAX_BYTES = 64 * 1024
MAX_DEPTH = 8
MAX_ERRORS = 50
"""Nobody reads more."""

D = TypeVar("D", bound=Struct)


class FileError(Struct, frozen=True):
    """What is wrong and where; lines and columns count from 1, `field` is a JSON Pointer (RFC 6901)."""

    line: int
    column: int
    detail: str
    field: str = ""

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.detail}"


class BadFile(ValueError):
    """All that is wrong with a file."""

    def __init__(self, errors: Sequence[FileError]) -> None:
        super().__init__("\n".join(map(str, errors)))
        self.errors = tuple(errors)


def read_policy(text: str) -> Policy:
    """The policy that a YAML document describes. Raises BadFile with every error in it."""
    return read_definition(text, Policy)


def read_definition(text: str, kind: type[D]) -> D:
    """The Struct that a YAML document describes. Raises BadFile with every error in it, 50 at most."""
    node = _composed(text)
    errors: list[FileError] = []
    value = _Walk(errors).read(node, kind, "")
    _refuse(errors)
    definition = msgspec.convert(value, kind)
    if isinstance(definition, AnyDefinition):
        _refuse([_found(node, fault) for fault in faults_of(definition)])
    return definition


def _refuse(errors: list[FileError]) -> None:
    if errors:
        ordered = sorted(errors, key=lambda error: (error.line, error.column))
        raise BadFile(ordered[:MAX_ERRORS])


def _found(node: Node, fault: FieldError) -> FileError:
    """A fault of a field where the field stands; of one that is left out, where the document begins."""
    for part in fault.field.split("/")[1:]:
        entries = node.value if isinstance(node, MappingNode) else []
        inner = [value for key, value in entries if _escaped(str(key.value)) == part]
        if not inner:
            break
        node = inner[0]
    return _error_at(node.start_mark, fault.detail, fault.field)


def _composed(text: str) -> Node:
    if len(text.encode()) > MAX_BYTES:
        raise BadFile([FileError(1, 1, f"a file has at most {MAX_BYTES} bytes")])
    try:
        _check_events(text)
        # Composing only: no tag makes an object.
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BadFile([_error_at(mark, error.problem or "this is not YAML")]) from error
    except yaml.YAMLError as error:
        raise BadFile([FileError(1, 1, f"this is not YAML: {error}")]) from error
    if node is None:
        raise BadFile([FileError(1, 1, "the document is empty")])
    return node


def _check_events(text: str) -> None:
    """Before anything is built: deep nesting costs the reader time by the square, and then its stack;
    aliases make much out of little."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, CollectionStartEvent):
            depth += 1
        elif isinstance(event, CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise BadFile([_error_at(event.start_mark, "it is nested too deeply")])
        if isinstance(event, AliasEvent):
            raise BadFile([_error_at(event.start_mark, "aliases are not taken here")])


class _Walk:
    """One walk through a document; what is wrong is put into `errors`."""

    def __init__(self, errors: list[FileError]) -> None:
        self._errors = errors

    def read(self, node: Node, hint: Any, at: str) -> Any:
        """The node as plain values for `hint`; None, with errors, where it is none."""
        before = len(self._errors)
        value = self._value(node, hint, at)
        if len(self._errors) == before:
            # The last word on bounds, and on what the parts must be together, is the type's own.
            try:
                msgspec.convert(value, hint)
            except msgspec.ValidationError as error:
                self._wrong(node, _words(error, hint), at)
        return value

    def _value(self, node: Node, hint: Any, at: str) -> Any:
        plain = _plain(hint)
        if _is_null(node) and plain is not _without_none(plain):
            return None
        plain = _plain(_without_none(plain))
        kind = get_origin(plain) or plain
        if isinstance(kind, type) and issubclass(kind, Struct):
            return self._struct(node, plain, at)
        if kind is dict:
            key_hint, value_hint = get_args(plain)
            return self._mapping(node, key_hint, value_hint, at)
        if kind is tuple:
            return self._list(node, get_args(plain)[0], at)
        return self._leaf(node, plain, at)

    def _struct(self, node: Node, kind: type[Struct], at: str) -> dict[str, Any]:
        hints = _hints(kind)
        found: dict[str, Any] = {}
        seen: set[str] = set()
        for name, key, value in self._entries(node, at):
            seen.add(name)
            if name in hints:
                found[name] = self.read(value, hints[name], f"{at}/{name}")
            else:
                self._wrong(key, f"unknown field {name!r}; there are {_list(hints)}", at)
        if isinstance(node, MappingNode):
            for field in msgspec.structs.fields(kind):
                if field.required and field.name not in seen:
                    self._wrong(node, f"field {field.name!r} is missing", f"{at}/{field.name}")
        return found

    def _mapping(self, node: Node, key_hint: Any, value_hint: Any, at: str) -> dict[str, Any]:
        names = get_args(key_hint) if get_origin(key_hint) is Literal else None
        found: dict[str, Any] = {}
        for name, key, value in self._entries(node, at):
            here = f"{at}/{_escaped(name)}"
            if names is not None and name not in names:
                self._wrong(key, f"unknown name {name!r}; there are {_list(names)}", here)
                continue
            if names is None:
                self.read(key, key_hint, here)
            found[name] = self.read(value, value_hint, here)
        return found

    def _list(self, node: Node, hint: Any, at: str) -> list[Any]:
        if not isinstance(node, SequenceNode):
            self._wrong(node, "expected a list", at)
            return []
        return [self.read(each, hint, f"{at}/{index}") for index, each in enumerate(node.value)]

    def _leaf(self, node: Node, plain: Any, at: str) -> Any:
        if not isinstance(node, ScalarNode):
            self._wrong(node, "expected a single value", at)
            return None
        value = _scalar(node, plain)
        choices = get_args(plain) if get_origin(plain) is Literal else (value,)
        if value not in choices:
            self._wrong(node, f"expected one of: {', '.join(map(str, choices))}", at)
        return value

    def _entries(self, node: Node, at: str) -> Iterator[tuple[str, Node, Node]]:
        """Key in words, key, value of each entry of a mapping; a repeated key is an error."""
        if not isinstance(node, MappingNode):
            self._wrong(node, "expected a mapping", at)
            return
        seen: dict[str, int] = {}
        for key, value in node.value:
            name = str(key.value) if isinstance(key, ScalarNode) else ""
            if not name:
                self._wrong(key, "expected a name", at)
            elif name in seen:
                self._wrong(key, f"{name!r} stands in line {seen[name]} already", at)
            else:
                seen[name] = key.start_mark.line + 1
                yield name, key, value

    def _wrong(self, node: Node, detail: str, at: str) -> None:
        self._errors.append(_error_at(node.start_mark, detail, at))


def _scalar(node: ScalarNode, plain: Any) -> Any:
    """A scalar by YAML's own rules where its type wants a number or a truth value. Where it wants text,
    words that YAML takes for something else (`off`, `1`) stay words."""
    choices = get_args(plain) if get_origin(plain) is Literal else ()
    if plain is str or (choices and all(isinstance(choice, str) for choice in choices)):
        return node.value
    if not node.tag.endswith((":int", ":float", ":bool")):
        return node.value
    try:
        value = yaml.SafeLoader("").construct_object(node)
    except (ValueError, OverflowError, KeyError):
        # A tag may claim a number where there is none.
        return node.value
    return value if math.isfinite(value) else node.value


def _words(error: msgspec.ValidationError, hint: Any) -> str:
    """msgspec's message without its path; what a pattern means in place of the pattern."""
    text = str(error).split(" - at ")[0].replace("`", "").replace(" | null", "")
    while get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        meanings = [extra.description for extra in extras if isinstance(extra, Meta)]
        if "regex" in text and any(meanings):
            return f"expected {meanings[0]}"
    return text[:1].lower() + text[1:]


def _is_null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.tag.endswith(":null")


def _plain(hint: Any) -> Any:
    """A hint without its bounds."""
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    return hint


def _without_none(plain: Any) -> Any:
    if get_origin(plain) not in (Union, types.UnionType):
        return plain
    return next(part for part in get_args(plain) if part is not type(None))


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    found = get_type_hints(kind, include_extras=True)
    return {name: found[name] for name in kind.__struct_fields__}


def _list(names: Any) -> str:
    return ", ".join(sorted(names))


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _error_at(mark: Any, detail: str, field: str = "") -> FileError:
    line, column = (mark.line, mark.column) if mark else (0, 0)
    return FileError(line + 1, column + 1, detail, field)
