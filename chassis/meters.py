"""Meters: counters, gauges and histograms of a process, kept in memory and read as Prometheus text.

What belongs here: counting. Names follow Prometheus' conventions (base units, `_total`), every one begins
with `vireo_` and is listed in METERS with its help text: an unlisted name is a bug and raises.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from msgspec import Struct

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the buckets of durations."""

Labels = tuple[tuple[str, str], ...]


class Meter(Struct, frozen=True, kw_only=True):
    """One name: what it counts, and the labels that it has."""

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


METERS: dict[str, Meter] = {
    "vireo_service_info": Meter(
        kind="gauge", help="Always 1.", labels=("service", "instance", "site", "version")
    ),
    "vireo_messages_handled_total": Meter(
        kind="counter",
        help="Messages that a durable consumer's handler is through with, by outcome.",
        labels=("consumer", "outcome"),
    ),
    "vireo_message_handling_seconds": Meter(
        kind="histogram", help="Time that handling a message took.", labels=("consumer",)
    ),
    "vireo_requests_answered_total": Meter(
        kind="counter",
        help="Requests that a micro endpoint answered, by outcome.",
        labels=("endpoint", "outcome"),
    ),
    "vireo_request_answering_seconds": Meter(
        kind="histogram", help="Time that answering a request took.", labels=("endpoint",)
    ),
    "vireo_bus_connected": Meter(kind="gauge", help="1 while the bus is connected."),
    "vireo_ready": Meter(kind="gauge", help="1 while the service can do its work."),
}


class _Histogram:
    """Counts per bucket, their number and sum."""

    __slots__ = ("buckets", "total")

    def __init__(self) -> None:
        self.buckets = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.buckets[bisect.bisect_left(SECONDS, value)] += 1
        self.total += value


class Meters:
    """The meters of one service. Not for several threads: all counting happens on the event loop."""

    def __init__(self, more: Mapping[str, Meter] | None = None) -> None:
        self._meters = METERS | dict(more or {})
        self._numbers: dict[str, dict[Labels, float]] = {}
        self._histograms: dict[str, dict[Labels, _Histogram]] = {}
        self._watched: dict[str, Callable[[], float]] = {}
        self._watched_each: dict[str, Callable[[], Mapping[str, float]]] = {}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        series = self._numbers.setdefault(name, {})
        key = self._key(name, "counter", labels)
        series[key] = series.get(key, 0.0) + amount

    def set(self, name: str, value: float, **labels: str) -> None:
        self._numbers.setdefault(name, {})[self._key(name, "gauge", labels)] = value

    def watch(self, name: str, read: Callable[[], float]) -> None:
        """A gauge without labels whose value is asked for when the meters are read."""
        self._key(name, "gauge", {})
        self._watched[name] = read

    def watch_each(self, name: str, read: Callable[[], Mapping[str, float]]) -> None:
        """A counter with one label whose values are asked for when the meters are read."""
        (label,) = self._meters[name].labels
        self._key(name, "counter", {label: ""})
        self._watched_each[name] = read

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        key = self._key(name, "histogram", labels)
        self._histograms.setdefault(name, {}).setdefault(key, _Histogram()).add(seconds)

    def handled(self, *, consumer: str, outcome: str, seconds: float) -> None:
        """A consumer's handler is through with one message."""
        self.count("vireo_messages_handled_total", consumer=consumer, outcome=outcome)
        self.observe("vireo_message_handling_seconds", seconds, consumer=consumer)

    def answered(self, *, endpoint: str, outcome: str, seconds: float) -> None:
        """A micro endpoint answered one request."""
        self.count("vireo_requests_answered_total", endpoint=endpoint, outcome=outcome)
        self.observe("vireo_request_answering_seconds", seconds, endpoint=endpoint)

    def value(self, name: str, **labels: str) -> float:
        """What a counter or gauge stands at; 0 where nothing was counted."""
        if name in self._watched:
            return self._watched[name]()
        if name in self._watched_each:
            return self._watched_each[name]().get(next(iter(labels.values()), ""), 0.0)
        key = tuple(sorted(labels.items()))
        return self._numbers.get(name, {}).get(key, 0.0)

    def text(self) -> str:
        """Everything in Prometheus' text format 0.0.4."""
        lines = [line for name in sorted(self._meters) for line in self._lines(name)]
        return "\n".join(lines) + "\n"

    def _lines(self, name: str) -> Iterable[str]:
        samples = [*self._number_lines(name), *self._histogram_lines(name)]
        if not samples:
            return []
        meter = self._meters[name]
        return [f"# HELP {name} {meter.help}", f"# TYPE {name} {meter.kind}", *samples]

    def _number_lines(self, name: str) -> Iterable[str]:
        for labels, value in sorted(self._numbers.get(name, {}).items()):
            yield f"{name}{_braces(labels)} {_number(value)}"
        if name in self._watched:
            yield f"{name} {_number(self._watched[name]())}"
        if name in self._watched_each:
            (label,) = self._meters[name].labels
            for of, value in sorted(self._watched_each[name]().items()):
                yield f"{name}{_braces(((label, of),))} {_number(value)}"

    def _histogram_lines(self, name: str) -> Iterable[str]:
        for labels, histogram in sorted(self._histograms.get(name, {}).items()):
            running = 0
            for bound, count in zip((*SECONDS, "+Inf"), histogram.buckets, strict=True):
                running += count
                yield f"{name}_bucket{_braces((*labels, ('le', str(bound))))} {running}"
            yield f"{name}_sum{_braces(labels)} {histogram.total:.9g}"
            yield f"{name}_count{_braces(labels)} {running}"

    def _key(self, name: str, kind: str, labels: Mapping[str, str]) -> Labels:
        meter = self._meters[name]
        if meter.kind != kind or set(meter.labels) != set(labels):
            raise ValueError(f"{name} is a {meter.kind} with the labels {meter.labels}")
        return tuple(sorted(labels.items()))


def _braces(labels: Labels) -> str:
    inner = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)
    return f"{{{inner}}}" if inner else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    """Exact, and whole numbers without a point: `:g` would round a counter at a million."""
    return str(int(value)) if value == int(value) else repr(value)
