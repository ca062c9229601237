"""Labels, taints and tuning as people type them, and what they make of those that are set already. Pure.

The server replaces each of them as a whole; here the whole is made of the old and the changes. What was
changed meanwhile is not overwritten: the generation of the old goes along.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from schemas.resources import HostConfig, HostTuning
from schemas.rules import Taint

EFFECTS: tuple[Literal["refuse", "avoid"], ...] = ("refuse", "avoid")


class Selected(Struct, frozen=True):
    """Which taints to take away: None is any."""

    key: str
    value: str | None = None
    effect: str | None = None


class HostChanges(Struct, frozen=True, kw_only=True):
    """What is to be changed of what operators have set: the server replaces each part as a whole, and
    None leaves it as it is."""

    labels: Mapping[str, str]
    unlabelled: tuple[str, ...]
    taints: tuple[Taint, ...]
    untainted: tuple[Selected, ...]
    tuning: Mapping[str, float | None]
    unset: tuple[str, ...]

    @property
    def needs_old(self) -> bool:
        """Whether it takes a look at what is set already."""
        named = (self.labels, self.unlabelled, self.taints, self.untainted, self.unset)
        return any(named) or is_given(self.tuning)

    def labels_over(self, old: HostConfig) -> dict[str, str] | None:
        if not self.labels and not self.unlabelled:
            return None
        both = {**old.labels, **self.labels}
        return {key: value for key, value in both.items() if key not in self.unlabelled}

    def taints_over(self, old: HostConfig) -> tuple[Taint, ...] | None:
        if not self.taints and not self.untainted:
            return None
        return changed_taints(old.taints, added=self.taints, removed=self.untainted)

    def tuning_over(self, old: HostConfig) -> HostTuning | None:
        if not self.unset and not is_given(self.tuning):
            return None
        return changed_tuning(old.tuning, self.tuning, unset=self.unset)


def taints(texts: Iterable[str]) -> tuple[Taint, ...]:
    """`KEY[=VALUE][:EFFECT]` each; without an effect it refuses. Raises ValueError."""
    found = []
    for text in texts:
        one = _split(text)
        fields = {"key": one.key, "value": one.value or "", "effect": one.effect or "refuse"}
        try:
            found.append(msgspec.convert(fields, Taint))
        except msgspec.ValidationError as error:
            raise ValueError(f"{text!r} is no taint: {error}") from error
    return tuple(found)


def removals(texts: Iterable[str]) -> tuple[Selected, ...]:
    """`KEY[=VALUE][:EFFECT]` each: what is left out matches any. Raises ValueError."""
    return tuple(_split(text) for text in texts)


def _split(text: str) -> Selected:
    rest, colon, effect = text.partition(":")
    key, equals, value = rest.partition("=")
    if not key:
        raise ValueError(f"{text!r} is no KEY[=VALUE][:EFFECT]")
    if colon and effect not in EFFECTS:
        raise ValueError(f"{text!r}: the effect is one of {', '.join(EFFECTS)}")
    return Selected(key, value if equals else None, effect if colon else None)


def changed_taints(
    old: Iterable[Taint], *, added: Iterable[Taint], removed: Iterable[Selected]
) -> tuple[Taint, ...]:
    """What is left of the old and what is new, in this order and each once."""
    gone = tuple(removed)
    kept = [one for one in old if not any(_matches(one, other) for other in gone)]
    return tuple(dict.fromkeys([*kept, *added]))


def _matches(taint: Taint, selected: Selected) -> bool:
    return (
        taint.key == selected.key
        and selected.value in (None, taint.value)
        and selected.effect in (None, taint.effect)
    )


def changed_tuning(
    old: HostTuning, given: Mapping[str, Any], *, unset: Iterable[str]
) -> HostTuning:
    """`given` over the old, None meaning not given; `unset` go back to what the site's settings say.
    Raises ValueError."""
    defaults = msgspec.to_builtins(HostTuning())
    names = [name.replace("-", "_") for name in unset]
    known = HostTuning.__struct_fields__
    if unknown := [name for name in names if name not in known]:
        listed = ", ".join(name.replace("_", "-") for name in known)
        raise ValueError(f"there is no {unknown[0]!r} to unset; there are {listed}")
    fields = msgspec.structs.asdict(old)
    fields |= {name: value for name, value in given.items() if value is not None}
    for name in names:
        fields.pop(name)
    return HostTuning(**{**defaults, **fields})


def is_given(given: Mapping[str, Any]) -> bool:
    return any(value is not None for value in given.values())
