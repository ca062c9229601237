"""`python -m bench [NAME ...] [--json]`: run benchmarks and say what was measured."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

import structlog

from bench.places import disk, spread
from bench.report import json_line, table

NAMES = ("creates", "boot", "footprint", "scheduler", "inventory", "metrics")
PARTS = {"metrics": ("metrics", "stats", "guest_agent")}
"""Of what has other modules than the one of its name."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(NAMES)}")
    parser.add_argument("--json", action="store_true", help="one object a line, for programs")
    parser.add_argument(
        "--events", type=int, metavar="N", help="events in the record, where `inventory` needs many"
    )
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(NAMES))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    # Standard output is for figures alone.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    for name in arguments.names or NAMES:
        measure(name, as_json=arguments.json, events=arguments.events)
    return 0


def measure(name: str, *, as_json: bool, events: int | None = None) -> None:
    print(f"bench: {name}", file=sys.stderr, flush=True)
    parts = [importlib.import_module(f"bench.{part}") for part in PARTS.get(name, (name,))]
    # Short: Unix sockets lie below it. QEMU and Postgres go through it as users of their own.
    with tempfile.TemporaryDirectory(prefix="vireo-bench-", dir=disk()) as directory:
        Path(directory).chmod(0o711)
        spread(Path(directory))
        given = {"events": events} if name == "inventory" and events is not None else {}
        rows = [figure for part in parts for figure in part.run(Path(directory), **given)]
    if as_json:
        for figure in rows:
            print(json_line(figure), flush=True)
    else:
        print(table(rows), flush=True)


if __name__ == "__main__":
    sys.exit(main())
