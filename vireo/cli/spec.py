"""From a file and options to the body of a create request. Pure but for `read_spec`.

The result is a plain mapping, not a VmSpec: the server looks at it and names every bad field at once.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from vireo.cli import quantities

MOST_BYTES = 1 << 20


class SpecOptions(Struct, frozen=True, kw_only=True):
    """What was given on the command line; None or empty means: not given."""

    name: str | None = None
    image: str | None = None
    cpus: int | None = None
    memory: str | None = None
    disks: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    on_host: str | None = None
    on_labels: tuple[str, ...] = ()
    stopped: bool = False


def read_spec(path: str) -> dict[str, Any]:
    """The mapping in a YAML or JSON file; `-` is standard input. Raises ValueError."""
    import yaml

    try:
        if path == "-":
            text = sys.stdin.read(MOST_BYTES + 1)
        else:
            with Path(path).open(encoding="utf-8") as file:
                text = file.read(MOST_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    if len(text) > MOST_BYTES:
        raise ValueError(f"{path} is larger than {MOST_BYTES} bytes")
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ValueError(f"{path} holds no mapping of a VM's fields")
    return found


def spec_of(options: SpecOptions, base: Mapping[str, Any]) -> dict[str, Any]:
    """`base` (from a file, or empty) with the options over it. Raises ValueError."""
    spec = dict(base)
    if options.name is not None:
        spec["name"] = options.name
    if options.cpus is not None:
        spec["cpus"] = options.cpus
    if options.memory is not None:
        spec["memory_mib"] = quantities.memory_mib(options.memory)
    if options.image is not None or options.disks:
        spec["disks"] = quantities.disks(options.image, options.disks)
    if options.networks:
        spec["nics"] = [{"network": network} for network in options.networks]
    if options.labels:
        spec["labels"] = _over(spec.get("labels"), quantities.labels(options.labels))
    if options.stopped:
        spec["power"] = "stopped"
    return _with_rules(spec, options)


def missing(spec: Mapping[str, Any]) -> str:
    """What a VM cannot do without, in the words of the command line; empty if nothing is missing."""
    if "name" not in spec:
        return "a NAME, or a file (-f) with a name"
    if "disks" not in spec:
        return "--image (and --disk for its size), or --disk for a blank disk"
    return ""


def _with_rules(spec: dict[str, Any], options: SpecOptions) -> dict[str, Any]:
    rules: dict[str, Any] = {}
    if options.on_host is not None:
        rules["host"] = options.on_host
    if options.on_labels:
        rules["labels"] = quantities.labels(options.on_labels)
    if not rules:
        return spec
    old = spec.get("on")
    if "labels" in rules and isinstance(old, dict):
        rules["labels"] = _over(old.get("labels"), rules["labels"])
    return {**spec, "on": _over(old, rules)}


def _over(old: Any, new: Mapping[str, Any]) -> Any:
    # What is no mapping in a file is left to the server to complain about.
    if old is None or isinstance(old, dict):
        return {**(old or {}), **new}
    return old
