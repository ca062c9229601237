"""The reference of settings for people, as Markdown, made from the Structs themselves.

Pure but for reading the Structs' source, where the text of each setting stands beneath its field.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from msgspec import Meta, Struct

from chassis.secret import Secret
from chassis.settings import ChassisSettings
from chassis.settings_fields import Leaf, bare, leaves, metas, optional, variables

INTRODUCTION = """# Settings

Made from the settings' own definitions by `./dev docs`; don't edit.

A setting comes from its default, then from the TOML file named by `--config`, then from the
environment: the later one wins. Variables of all services begin with `VIREO_`, those of one service
with `VIREO_<SERVICE>_`, and a shared setting can be set for one service only by the latter. What is
unknown or out of range stops the service at its start, with every fault named;
`--check-settings` only looks. Lists are written `a,b` in variables.
"""


def reference(services: Mapping[str, type[ChassisSettings]]) -> str:
    """One table of what all have, and one for each service."""
    shared = leaves(ChassisSettings, ChassisSettings)
    parts = [INTRODUCTION, "## Every service\n", *_table(shared, "SERVICE")]
    for service, settings in services.items():
        own = [leaf for leaf in leaves(settings, ChassisSettings) if not leaf.shared]
        parts += [f"\n## {service}\n", *(_table(own, service) if own else ["None of its own."])]
    return "\n".join(parts) + "\n"


def undescribed(settings: type[Struct]) -> list[str]:
    """The settings that lack a text."""
    return [leaf.key for leaf in leaves(settings) if not description(leaf)]


def description(leaf: Leaf) -> str:
    """What stands beneath the field, else the description in its `Meta`."""
    own = docstrings(leaf.owner).get(leaf.name)
    return own or next((meta.description for meta in metas(leaf.hint) if meta.description), "")


def _table(fields: Sequence[Leaf], service: str) -> list[str]:
    head = ["| setting | variable | type | default | |", "| --- | --- | --- | --- | --- |"]
    return head + [_row(leaf, service) for leaf in fields]


def _row(leaf: Leaf, service: str) -> str:
    cells = (
        f"`{leaf.key}`",
        f"`{variables(leaf, service)[-1]}`",
        type_words(leaf.hint),
        _default_words(leaf),
        description(leaf),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default_words(leaf: Leaf) -> str:
    if leaf.required:
        return "required"
    if leaf.default in (None, "", ()):
        return ""
    if isinstance(leaf.default, tuple):
        return f"`{','.join(map(str, leaf.default))}`"
    if isinstance(leaf.default, bool):
        return f"`{str(leaf.default).lower()}`"
    return f"`{leaf.default}`"


def type_words(hint: Any) -> str:
    """A type and its limits in words: `integer, 1 to 65535`."""
    words = _type_word(bare(hint))
    limits = [limit for meta in metas(hint) for limit in _limit_words(meta)]
    none = " (may be left out)" if optional(hint) else ""
    return ", ".join([words, *limits]) + none


def _type_word(plain: Any) -> str:
    origin = get_origin(plain)
    if origin is Literal:
        return "one of " + ", ".join(f"`{choice}`" for choice in get_args(plain))
    if origin in (tuple, list, frozenset):
        return f"list of {_type_word(bare(get_args(plain)[0]))}"
    if origin is dict:
        return "table"
    words = {str: "text", int: "integer", float: "number", bool: "true or false", Path: "path"}
    return words.get(plain, "secret" if plain is Secret else "table")


def _limit_words(meta: Meta) -> Iterator[str]:
    if meta.ge is not None and meta.le is not None:
        yield f"{meta.ge} to {meta.le}"
    elif meta.ge is not None:
        yield f"at least {meta.ge}"
    elif meta.le is not None:
        yield f"at most {meta.le}"
    if meta.gt is not None:
        yield f"above {meta.gt}"
    if meta.pattern is not None:
        yield f"matching `{meta.pattern}`"


def docstrings(settings: type[Struct]) -> dict[str, str]:
    """The strings that stand beneath a Struct's fields, read from its source (inherited ones too)."""
    found: dict[str, str] = {}
    for ancestor in reversed(settings.__mro__):
        if ancestor in (object, Struct) or not issubclass(ancestor, Struct):
            continue
        try:
            source = textwrap.dedent(inspect.getsource(ancestor))
        except (OSError, TypeError):
            continue  # made at run time or without its source: then it has no text beneath its fields
        found |= _beneath(ast.parse(source).body[0])
    return found


def _beneath(definition: ast.stmt) -> dict[str, str]:
    body = definition.body if isinstance(definition, ast.ClassDef) else []
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }
