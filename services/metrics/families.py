"""Metrics as values: what there is to tell, and the labels and numbers of each. Pure.

What belongs here: the shape. What is told of hosts stands in `host_metrics`, of VMs in `vm_metrics`, of the
control plane in `plane_metrics`; how it reads for Prometheus in `exposition`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Literal

from msgspec import Struct

from services.metrics.model import Fleet, HostNewest
from services.metrics.plane import Plane

KIB = 1024
MIB = 1024 * 1024

Kind = Literal["gauge", "counter"]
Labels = tuple[tuple[str, str], ...]
Sample = tuple[Labels, float]


class Metric(Struct, frozen=True, kw_only=True):
    """One metric: how it is called, what it says, and its value of one thing (None: not known)."""

    name: str
    help: str
    value: Callable[[Any], float | None]
    kind: Kind = "gauge"


class Known(Struct, frozen=True, kw_only=True):
    """All that may be told."""

    hosts: tuple[HostNewest, ...]
    fleet: Fleet
    plane: Plane

    @classmethod
    def of(cls, fleet: Fleet, plane: Plane) -> Known:
        return cls(
            hosts=tuple(fleet.hosts[key] for key in sorted(fleet.hosts)), fleet=fleet, plane=plane
        )


class Section(Struct, frozen=True, kw_only=True):
    """Metrics of one kind of thing. `labels`: the names of those that each of the things has."""

    metrics: tuple[Metric, ...]
    labels: tuple[str, ...]
    things: Callable[[Known], Iterable[tuple[Labels, Any]]]


class Family(Struct, frozen=True, kw_only=True):
    """A metric with its values. Never without any: what nothing has a value of is left out."""

    metric: Metric
    samples: tuple[Sample, ...]


def families(
    sections: Iterable[Section], known: Known, *, names: Collection[str] | None = None
) -> Iterator[Family]:
    """Of all metrics, or of those that are named."""
    for section in sections:
        wanted = [each for each in section.metrics if names is None or each.name in names]
        if wanted:
            yield from _valued(wanted, list(section.things(known)))


def _valued(metrics: list[Metric], things: list[tuple[Labels, Any]]) -> Iterator[Family]:
    for metric in metrics:
        valued = ((labels, metric.value(thing)) for labels, thing in things)
        samples = tuple((labels, value) for labels, value in valued if value is not None)
        if samples:
            yield Family(metric=metric, samples=samples)


def labelled(**labels: str | None) -> Labels:
    """Those that are known: to Prometheus an empty label is none."""
    return tuple((name, value) for name, value in labels.items() if value)


def times(value: float | None, unit: float) -> float | None:
    """In base units; what is not known stays so."""
    return None if value is None else value * unit


def always(_thing: object) -> float:
    """1: the value of metrics whose labels are what they say."""
    return 1
