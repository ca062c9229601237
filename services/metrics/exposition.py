"""What is known in Prometheus' text format 0.0.4. Pure.

Names keep Prometheus' conventions: base units (bytes, seconds, ratios), `_total` on counters. What is
not known is left out, never zero.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import lru_cache

from services.metrics.families import Family, Known, Labels, families
from services.metrics.host_metrics import HOST_SECTIONS
from services.metrics.model import Fleet
from services.metrics.plane import Plane
from services.metrics.plane_metrics import PLANE_SECTIONS
from services.metrics.vm_metrics import VM_SECTIONS

SECTIONS = (*HOST_SECTIONS, *VM_SECTIONS, *PLANE_SECTIONS)

LABELS: dict[str, tuple[str, ...]] = {
    metric.name: section.labels for section in SECTIONS for metric in section.metrics
}
"""Every metric there may be, with the names of its labels."""

REMEMBERED_LABELS = 65_536


def told(fleet: Fleet, plane: Plane, *, names: Collection[str] | None = None) -> Iterator[Family]:
    """What is known, or that part of it which is named."""
    return families(SECTIONS, Known.of(fleet, plane), names=names)


def text(fleet: Fleet, plane: Plane | None = None) -> str:
    """All metrics, each with its help and type."""
    lines = (line for family in told(fleet, plane or Plane()) for line in _lines(family))
    return "".join(f"{line}\n" for line in lines)


def _lines(family: Family) -> Iterator[str]:
    metric = family.metric
    yield f"# HELP {metric.name} {metric.help}"
    yield f"# TYPE {metric.name} {metric.kind}"
    for labels, value in family.samples:
        yield f"{metric.name}{_braces(labels)} {_number(value)}"


@lru_cache(maxsize=REMEMBERED_LABELS)
def _braces(labels: Labels) -> str:
    """A thing has the same labels in each of its metrics, and at each scrape."""
    inner = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)
    return f"{{{inner}}}" if inner else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))
