"""A VM's spec in a file of YAML or JSON: its values, and in which line each field stands. Pure but for
`read_text`.

The server names bad fields by JSON Pointers; whoever wrote the file looks for lines.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from vireo.cli import words

if TYPE_CHECKING:
    from yaml import SafeLoader
    from yaml.nodes import Node

MOST_BYTES = 1 << 20
MOST_FIELDS = 20_000
"""References to earlier parts of a file can make a small one large."""
MOST_DEPTH = 32
DROPPED = (":bool", ":timestamp")
"""What words of YAML 1.1 are taken for that are no such thing in 1.2."""


class SpecFile(Struct, frozen=True, kw_only=True):
    """`lines`: from 1, by the JSON Pointer of each field and item; the whole is ``""``."""

    path: str = ""
    values: Mapping[str, Any] = {}
    lines: Mapping[str, int] = {}

    def where(self, pointer: str, sent: Any) -> str:
        """`web.yaml, line 7`: where a field stands, or what it is missing from. Empty where what was
        `sent` is not of this file."""
        if not self.lines or not pointer:
            return ""
        if _at(sent, pointer) != _at(self.values, pointer):
            return ""
        while pointer not in self.lines:
            pointer = pointer.rpartition("/")[0]
        return f"{self.path}, line {self.lines[pointer]}"


def read_spec(path: str) -> SpecFile:
    """A mapping of a VM's fields; `-` is standard input. Raises ValueError."""
    return parse_spec(read_text(path), "standard input" if path == "-" else path)


def read_text(path: str) -> str:
    """`-` is standard input. Raises ValueError."""
    try:
        if path == "-":
            text = sys.stdin.read(MOST_BYTES + 1)
        else:
            with Path(path).open(encoding="utf-8") as file:
                text = file.read(MOST_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {path}: {words.unreadable(error)}") from error
    if len(text) > MOST_BYTES:
        raise ValueError(f"{path} is larger than {MOST_BYTES} bytes")
    return text


def parse_spec(text: str, path: str) -> SpecFile:
    """Raises ValueError, which names the line."""
    import yaml

    try:
        loader = _loader()(text)
        node = loader.get_single_node()
        lines = {} if node is None else _lines_of(node)
        found = None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, _Unclear) as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ValueError(f"{path} holds no mapping of a VM's fields")
    return SpecFile(path=path, values=found, lines=lines)


def _loader() -> type[SafeLoader]:
    """YAML as JSON's larger sister (its version 1.2): `on`, `off`, `yes` and `no` are words, and days
    are no dates. With the older rules nobody could write a spec's `on`."""
    import re

    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {  # noqa: RUF012 — as its parent has it
            letter: [(tag, pattern) for tag, pattern in known if not tag.endswith(DROPPED)]
            for letter, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:bool",
        re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"),
        list("tTfF"),
    )
    return Loader


class _Unclear(Exception):
    """It is YAML, and yet it does not say one thing."""


def _lines_of(node: Node) -> dict[str, int]:
    lines: dict[str, int] = {}
    for pointer, line in _walk(node, "", node.start_mark.line + 1, depth=0):
        if pointer in lines:
            name = pointer.rpartition("/")[2]
            raise _Unclear(f"line {line}: {name!r} stands in line {lines[pointer]} already")
        lines[pointer] = line
        if len(lines) > MOST_FIELDS:
            raise _Unclear(f"it has more than {MOST_FIELDS} fields")
    return lines


def _walk(node: Node, pointer: str, line: int, *, depth: int) -> Iterator[tuple[str, int]]:
    from yaml.nodes import MappingNode, SequenceNode

    if depth > MOST_DEPTH:
        raise _Unclear(f"line {line}: it is nested too deeply")
    yield pointer, line
    if isinstance(node, MappingNode):
        for key, value in node.value:
            name = str(key.value).replace("~", "~0").replace("/", "~1")
            at = key.start_mark.line + 1
            yield from _walk(value, f"{pointer}/{name}", at, depth=depth + 1)
    elif isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            at = item.start_mark.line + 1
            yield from _walk(item, f"{pointer}/{index}", at, depth=depth + 1)


def _at(value: Any, pointer: str) -> Any:
    """What stands at a pointer; None where nothing does."""
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping):
            value = value.get(name)
        elif isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value
