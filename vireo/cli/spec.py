"""From a file's values and options to the body of a create request. Pure.

The result is a plain mapping, not a VmSpec: the server looks at it and names every bad field at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from vireo.cli import quantities, rules
from vireo.cli.rules import RuleOptions


class SpecOptions(Struct, frozen=True, kw_only=True):
    """What was given on the command line; None or empty means: not given."""

    name: str | None = None
    template: str | None = None
    project: str | None = None
    policy: str | None = None
    image: str | None = None
    cpus: int | None = None
    memory: str | None = None
    disks: Sequence[str] = ()
    networks: Sequence[str] = ()
    labels: Sequence[str] = ()
    stopped: bool = False
    rules: RuleOptions = RuleOptions()


def spec_of(options: SpecOptions, base: Mapping[str, Any]) -> dict[str, Any]:
    """`base` (from a file, or empty) with the options over it. Raises ValueError."""
    spec = dict(base)
    for field in ("name", "template", "project", "policy", "cpus"):
        value = getattr(options, field)
        if value is not None:
            spec[field] = value
    if options.memory is not None:
        spec["memory_mib"] = quantities.memory_mib(options.memory)
    if options.image is not None or options.disks:
        spec["disks"] = quantities.disks(options.image, options.disks)
    if options.networks:
        spec["nics"] = [{"network": network} for network in options.networks]
    if options.stopped:
        spec["power"] = "stopped"
    for name, given in (
        ("labels", quantities.labels(options.labels)),
        ("on", rules.host_rules(options.rules)),
        ("hardware", rules.hardware(options.rules)),
    ):
        if given:
            spec[name] = _over(spec.get(name), given)
    return spec


def missing(spec: Mapping[str, Any]) -> str:
    """What a VM cannot do without, in the words of the command line; empty if nothing is missing."""
    if "name" not in spec:
        return "a NAME, or a file (-f) with a name"
    if "disks" not in spec and "template" not in spec:
        return "--image (and --disk for its size), --disk for a blank disk, or --template"
    return ""


def _over(old: Any, new: Any) -> Any:
    """Mappings are merged, lists go on, anything else is replaced."""
    if old is None:
        return new
    if isinstance(new, Mapping):
        # What is no mapping in a file is left to the server to complain about.
        if not isinstance(old, Mapping):
            return old
        return {**old, **{name: _over(old.get(name), value) for name, value in new.items()}}
    if isinstance(new, list):
        return [*old, *new] if isinstance(old, list) else old
    return new
