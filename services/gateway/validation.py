"""Reading bodies and queries so that every bad field is named, not only the first. Pure.

msgspec stops at the first error, so the value is walked along the type's hints and each leaf is
converted by itself. Fields are JSON Pointers (RFC 6901) in bodies and `query/<name>` in queries. What
fits together across fields (`checks.spec_errors`) is not checked here.
"""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from schemas.definition_files import BadFile, read_definition
from schemas.problems import FieldError

T = TypeVar("T", bound=Struct)

MAX_ERRORS = 50
"""Nobody reads more; and a hostile body costs no more."""

MAX_ECHO = 80
"""How much of an unknown name is said back."""

QUERY_NAMES = {"labels": "label", "from_": "from"}
"""What is called otherwise in a query: a table, given as `label=key=value` once per entry, and what Python
keeps for itself."""

_PYTHON_END = "(?!\\\\n)"
"""How msgspec spells what closes `$` for Python; it says nothing to people."""


class Invalid(Struct, frozen=True):
    """The request is not what it should be; every error is in it, `MAX_ERRORS` at most."""

    errors: tuple[FieldError, ...]


def read_body(raw: bytes, wanted: type[T]) -> T | Invalid:
    """A JSON body as `wanted`. An empty body is an empty object."""
    try:
        value = msgspec.json.decode(raw) if raw.strip() else {}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Invalid((FieldError(field="", detail=f"malformed JSON: {error}"),))
    except RecursionError:
        return Invalid((FieldError(field="", detail="malformed JSON: nested too deeply"),))
    errors = tuple(islice(faults(value, wanted), MAX_ERRORS))
    if errors:
        return Invalid(errors)
    return _converted(value, wanted, strict=True)


def read_yaml(raw: bytes, wanted: type[T]) -> T | Invalid:
    """A YAML body as `wanted`; each error says its line and column, too."""
    try:
        return read_definition(raw.decode(), wanted)
    except UnicodeDecodeError as error:
        return Invalid((FieldError(field="", detail=f"malformed YAML: {error}"),))
    except BadFile as bad:
        return Invalid(tuple(FieldError(field=e.field, detail=str(e)) for e in bad.errors))


def read_query(pairs: Sequence[tuple[str, str]], wanted: type[T]) -> T | Invalid:
    """The parameters of a query as `wanted`; each once, but for those of tables and lists."""
    hints = _hints(wanted)
    fields = {QUERY_NAMES.get(name, name): name for name in hints}
    errors: list[FieldError] = []
    values: dict[str, Any] = {}
    for name, text in pairs[: 4 * MAX_ERRORS]:
        if name not in fields:
            errors.append(_unknown(f"query/{_short(name)}", name, fields, "parameter"))
        else:
            errors.extend(_take(values, fields[name], name, text, hints[fields[name]]))
    errors.extend(
        FieldError(field=f"query/{QUERY_NAMES.get(name, name)}", detail=error.detail)
        for name, value in values.items()
        for error in faults(value, hints[name], strict=False)
    )
    if errors:
        return Invalid(tuple(errors[:MAX_ERRORS]))
    return _converted(values, wanted, strict=False)


def _take(
    values: dict[str, Any], field: str, name: str, text: str, hint: Any
) -> Iterator[FieldError]:
    """Put one parameter where it belongs."""
    plain, _ = _unwrap(hint)
    kind = get_origin(plain) or plain
    if kind is dict:
        key, separator, value = text.partition("=")
        if not separator:
            yield FieldError(
                field=f"query/{name}", detail=f"expected key=value, got {_short(text)}"
            )
        values.setdefault(field, {})[key] = value
    elif kind is tuple:
        values.setdefault(field, []).append(text)
    elif field in values:
        yield FieldError(field=f"query/{name}", detail="given more than once")
    else:
        values[field] = text


def _converted(value: Any, wanted: type[T], *, strict: bool) -> T | Invalid:
    """The last word is msgspec's: nothing gets past it that the walk overlooked."""
    try:
        return msgspec.convert(value, wanted, strict=strict)
    except msgspec.ValidationError as error:
        return Invalid((FieldError(field="", detail=_words(error)),))


# the walk


def faults(value: Any, hint: Any, at: str = "", *, strict: bool = True) -> Iterator[FieldError]:
    """Everything that keeps `value` from being a `hint`; `at` is where it stands."""
    plain, metas = _unwrap(hint)
    if _is_union(plain):
        yield from _union_faults(value, plain, at, strict=strict)
    elif isinstance(plain, type) and issubclass(plain, Struct):
        yield from _struct_faults(value, plain, at, strict=strict)
    elif get_origin(plain) is dict:
        yield from _dict_faults(value, plain, metas, at, strict=strict)
    elif get_origin(plain) in (tuple, list):
        yield from _list_faults(value, plain, metas, at, strict=strict)
    else:
        yield from _leaf_faults(value, plain, metas, at, strict=strict)


def _struct_faults(value: Any, plain: Any, at: str, *, strict: bool) -> Iterator[FieldError]:
    if not isinstance(value, dict):
        yield FieldError(field=at, detail=f"expected object, got {_kind(value)}")
        return
    found = False
    for error in _member_faults(value, plain, at, strict=strict):
        found = True
        yield error
    if not found and hasattr(plain, "__post_init__"):
        # What its members must be together, it says itself.
        try:
            msgspec.convert(value, plain, strict=strict)
        except msgspec.ValidationError as error:
            yield FieldError(field=at, detail=_words(error))


def _member_faults(
    value: Mapping[str, Any], plain: Any, at: str, *, strict: bool
) -> Iterator[FieldError]:
    hints = _hints(plain)
    lacking = {*_required(plain), *(plain.lacking(value) if hasattr(plain, "lacking") else ())}
    for name in hints:
        if name in value:
            yield from faults(value[name], hints[name], pointer(at, name), strict=strict)
        elif name in lacking:
            yield FieldError(field=pointer(at, name), detail="required")
    for name in value:
        if name not in hints:
            yield _unknown(pointer(at, _short(name)), name, hints, "field")


def _dict_faults(
    value: Any, plain: Any, metas: Sequence[Meta], at: str, *, strict: bool
) -> Iterator[FieldError]:
    yield from _leaf_faults(value, dict[str, Any], metas, at, strict=strict)
    if not isinstance(value, dict):
        return
    key_hint, value_hint = get_args(plain)
    for key, part in value.items():
        here = pointer(at, _short(key))
        for error in faults(key, key_hint, here, strict=strict):
            yield FieldError(field=here, detail=f"its name: {error.detail}")
        yield from faults(part, value_hint, here, strict=strict)


def _list_faults(
    value: Any, plain: Any, metas: Sequence[Meta], at: str, *, strict: bool
) -> Iterator[FieldError]:
    yield from _leaf_faults(value, list[Any], metas, at, strict=strict)
    if not isinstance(value, list):
        return
    for index, part in enumerate(value):
        yield from faults(part, get_args(plain)[0], f"{at}/{index}", strict=strict)


def _union_faults(value: Any, plain: Any, at: str, *, strict: bool) -> Iterator[FieldError]:
    """`X | None`: what keeps it from being an X. Wider unions stand in no request."""
    rest = [part for part in get_args(plain) if part is not type(None)]
    if value is None and len(rest) < len(get_args(plain)):
        return
    yield from faults(value, rest[0], at, strict=strict)


def _leaf_faults(
    value: Any, plain: Any, metas: Sequence[Meta], at: str, *, strict: bool
) -> Iterator[FieldError]:
    if get_origin(plain) is Literal:
        yield from _literal_faults(value, get_args(plain), at)
        return
    hint = plain
    for meta in metas:
        hint = Annotated[hint, meta]
    try:
        found = msgspec.convert(value, hint, strict=strict)
    except msgspec.ValidationError as error:
        yield FieldError(field=at, detail=_words(error, metas))
        return
    if isinstance(found, str) and "\0" in found:
        yield FieldError(field=at, detail="must not contain the character U+0000")
    if isinstance(found, float) and not math.isfinite(found):
        yield FieldError(field=at, detail="expected a finite number")


def _literal_faults(value: Any, choices: Sequence[Any], at: str) -> Iterator[FieldError]:
    if value not in choices or isinstance(value, bool):
        listed = ", ".join(str(choice) for choice in choices)
        yield FieldError(field=at, detail=f"expected one of: {listed}")


# words


def pointer(at: str, name: str) -> str:
    """The JSON Pointer of a member."""
    return f"{at}/{name.replace('~', '~0').replace('/', '~1')}"


def _unknown(field: str, name: str, known: Iterable[str], noun: str) -> FieldError:
    close = difflib.get_close_matches(name[:MAX_ECHO], list(known), n=1, cutoff=0.6)
    hint = f"; did you mean {close[0]}?" if close else ""
    return FieldError(field=field, detail=f"unknown {noun}{hint}")


def _words(error: msgspec.ValidationError, metas: Sequence[Meta] = ()) -> str:
    """msgspec's message without its path and marks, with what a pattern means."""
    text = str(error).split(" - at ")[0].replace("`", "").replace(_PYTHON_END, "")
    text = text[:1].lower() + text[1:]
    meanings = [meta.description for meta in metas if meta.pattern and meta.description]
    return f"{text} ({meanings[0]})" if meanings and "regex" in text else text


def _kind(value: Any) -> str:
    names: dict[type[Any], str] = {
        **{type(None): "null", bool: "bool", int: "int", float: "float"},
        **{str: "str", list: "array", dict: "object"},
    }
    return names[type(value)]


def _short(text: str) -> str:
    return text if len(text) <= MAX_ECHO else text[:MAX_ECHO] + "…"


# hints


@cache
def _hints(wanted: type[Any]) -> Mapping[str, Any]:
    """The type hints of a Struct's fields, in their order."""
    found = get_type_hints(wanted, include_extras=True)
    return {name: found[name] for name in wanted.__struct_fields__}


@cache
def _required(wanted: type[Any]) -> frozenset[str]:
    return frozenset(field.name for field in msgspec.structs.fields(wanted) if field.required)


def _is_union(plain: Any) -> bool:
    return get_origin(plain) in (Union, types.UnionType)


def _unwrap(hint: Any) -> tuple[Any, tuple[Meta, ...]]:
    """A hint without `Annotated`, and the limits that stood there."""
    metas: list[Meta] = []
    while get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        metas += [extra for extra in extras if isinstance(extra, Meta)]
    return hint, tuple(metas)
