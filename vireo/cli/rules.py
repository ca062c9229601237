"""Where a VM may be and what it needs of the machine, as typed on the command line. Pure.

The short forms of the commonest rules of `schemas/rules.py`; a file can say all of them. What comes out
are plain mappings for a request's body: the server names what is wrong with them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from vireo.cli import quantities

ANY = "*"
CONDITIONS = ("KEY=VALUE", "KEY=A,B", "KEY!=VALUE", "KEY>N", "KEY<N", "KEY", "!KEY")
COMPARED = re.compile(r"([^!=<>,]+)(!=|=|[<>](?=-?\d))([^!=<>]*)")
PLAIN = re.compile(r"[^!=<>,]+")
OPERATORS = {"=": "in", "!=": "not_in", ">": "greater", "<": "less"}
KIB_PER_MIB = 1024


class RuleOptions(Struct, frozen=True, kw_only=True):
    """What was given on the command line; None or empty means: not given."""

    on: str | None = None
    on_labels: Sequence[str] = ()
    not_on: Sequence[str] = ()
    prefer: Sequence[str] = ()
    affinity: Sequence[str] = ()
    anti_affinity: Sequence[str] = ()
    spread: Sequence[str] = ()
    tolerate: Sequence[str] = ()
    devices: Sequence[str] = ()
    huge_pages: str | None = None
    numa: str | None = None


def host_rules(options: RuleOptions) -> dict[str, Any]:
    """Only what was given, in the shape of a spec's `on`. Raises ValueError."""
    found: dict[str, Any] = {
        "host": options.on,
        "labels": quantities.labels(filter(_is_pair, options.on_labels)),
        "expressions": [expression(text) for text in options.on_labels if not _is_pair(text)],
        "not_on": list(options.not_on),
        "tolerations": [toleration(text) for text in options.tolerate],
        "prefer": [{"labels": quantities.labels([text])} for text in options.prefer],
        "affinity": [near(text) for text in options.affinity],
        "anti_affinity": [near(text) for text in options.anti_affinity],
        "spread": [spread(text) for text in options.spread],
    }
    return {name: value for name, value in found.items() if value}


def hardware(options: RuleOptions) -> dict[str, Any]:
    """Only what was given, in the shape of a spec's `hardware`. Raises ValueError."""
    found: dict[str, Any] = {
        "numa": options.numa,
        "huge_page_kib": None if options.huge_pages is None else page_kib(options.huge_pages),
        "devices": [device(text) for text in options.devices],
    }
    return {name: value for name, value in found.items() if value}


def expression(text: str) -> dict[str, Any]:
    """A condition on a host's labels: `gen>2`, `gen<9`, `rack=a,b` for either, `rack!=a`, `ssd` for any
    value, `!ssd` for none. Raises ValueError."""
    if compared := COMPARED.fullmatch(text):
        key, sign, value = compared.groups()
        return {"key": key, "operator": OPERATORS[sign], "values": value.split(",")}
    key = text.removeprefix("!")
    if not PLAIN.fullmatch(key):
        raise ValueError(f"{text!r} is none of {', '.join(CONDITIONS)}")
    return {"key": key, "operator": "exists" if key == text else "not_exists"}


def _is_pair(text: str) -> bool:
    """Whether it is `KEY=VALUE`: a label, not an expression."""
    compared = COMPARED.fullmatch(text)
    return compared is not None and compared[2] == "=" and "," not in text


def near(text: str) -> dict[str, Any]:
    """`app=db` on the same host, `app=db,tier=1@rack` on hosts with the same label `rack`."""
    selected, at, topology = text.partition("@")
    if at and not topology:
        raise ValueError(f"{text!r} names no label after @")
    labels = quantities.labels(selected.split(","))
    return {"labels": labels, **({"topology": topology} if at else {})}


def spread(text: str) -> dict[str, Any]:
    """`rack`: all VMs over racks; `app=web@rack`: those with the label; `app=web`: over hosts."""
    if "=" not in text and "@" not in text:
        if not text:
            raise ValueError("'' names no label to spread over")
        return {"topology": text}
    return near(text)


def toleration(text: str) -> dict[str, Any]:
    """`gpu`, `gpu=a100`; `*` is any taint."""
    if text == ANY:
        return {}
    key, equals, value = text.partition("=")
    if not key:
        raise ValueError(f"{text!r} is no KEY or KEY=VALUE")
    return {"key": key, **({"value": value} if equals else {})}


def device(text: str) -> dict[str, Any]:
    """`gpu`, `gpu=2`."""
    name, equals, count = text.partition("=")
    if not name or (equals and not (count.isascii() and count.isdigit() and len(count) < 4)):
        raise ValueError(f"{text!r} is no CLASS or CLASS=COUNT")
    return {"name": name, **({"count": int(count)} if equals else {})}


def page_kib(text: str) -> int:
    """`2MiB`, `1GiB`."""
    return quantities.mib(text, default_unit="MiB") * KIB_PER_MIB
