"""What settings a Struct holds: its fields flattened to leaves, each with its key and variable names.

Pure. Loading them is `chassis.settings_loader`'s, describing them `chassis.settings_reference`'s.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import NODEFAULT, Meta, Struct

from chassis.secret import Secret

ROOT = "VIREO"


class Leaf(Struct, frozen=True, kw_only=True):
    """One setting: `path` in the TOML file, `hint` its type with limits, `default` or NODEFAULT."""

    path: tuple[str, ...]
    hint: Any
    default: Any
    shared: bool
    """Whether it is every service's (`VIREO_…`) and not only this one's (`VIREO_<SERVICE>_…`)."""

    @property
    def key(self) -> str:
        return ".".join(self.path)

    @property
    def required(self) -> bool:
        return self.default is NODEFAULT

    owner: type[Struct]
    """The Struct that defines it, as its field `name`."""
    name: str

    @property
    def secret(self) -> bool:
        return Secret in (bare(self.hint), *get_args(bare(self.hint)))


def leaves(settings: type[Struct], shared: type[Struct] | None = None) -> tuple[Leaf, ...]:
    """Every setting of a Struct, nested Structs included, in their order of definition.

    `shared` is the Struct whose fields all services have.
    """
    common = {leaf.path for leaf in _walk(shared, (), NODEFAULT, frozenset())} if shared else set()
    found = tuple(_walk(settings, (), NODEFAULT, frozenset(common)))
    _refuse_ambiguous(found)
    return found


def variables(leaf: Leaf, service: str) -> tuple[str, ...]:
    """The environment variables that set a leaf, the strongest first."""
    name = suffix(leaf)
    own = f"{ROOT}_{service.upper()}_{name}"
    return (own, f"{ROOT}_{name}") if leaf.shared else (own,)


def suffix(leaf: Leaf) -> str:
    return "_".join(leaf.path).upper()


def bare(hint: Any) -> Any:
    """A type without `Annotated` and without `| None`."""
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, types.UnionType):
        rest = [part for part in get_args(hint) if part is not type(None)]
        if len(rest) == 1:
            return bare(rest[0])
    return hint


def optional(hint: Any) -> bool:
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    return get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)


def group_of(hint: Any) -> type[Struct] | None:
    """The Struct type of a field that holds a group of settings (a TOML table), else None."""
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    return hint if isinstance(hint, type) and issubclass(hint, Struct) else None


def metas(hint: Any) -> Iterator[Meta]:
    while get_origin(hint) is Annotated:
        inner, *extras = get_args(hint)
        yield from (extra for extra in reversed(extras) if isinstance(extra, Meta))
        hint = inner
    if get_origin(hint) in (Union, types.UnionType):
        for part in get_args(hint):
            yield from metas(part)


def _walk(
    settings: type[Struct], path: tuple[str, ...], given: Any, common: frozenset[tuple[str, ...]]
) -> Iterator[Leaf]:
    hints = get_type_hints(settings, include_extras=True)
    for field in msgspec.structs.fields(settings):
        here = (*path, field.encode_name)
        default = getattr(given, field.name) if given is not NODEFAULT else _default(field)
        group = group_of(hints[field.name])
        if group is not None:
            yield from _walk(group, here, default, common)
        else:
            yield Leaf(
                path=here,
                hint=hints[field.name],
                default=default,
                shared=here in common,
                owner=settings,
                name=field.name,
            )


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not NODEFAULT:
        return field.default_factory()
    return field.default


def _refuse_ambiguous(found: tuple[Leaf, ...]) -> None:
    """`a.b_c` and `a_b.c` would share one variable: a mistake of whoever wrote the Struct."""
    names = [suffix(leaf) for leaf in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TypeError(f"settings share a variable name: {', '.join(twice)}")
