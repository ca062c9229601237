"""Writes `docs/reference/cli.md` from the commands' own help: `python -m deploy.cli_reference`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from typer.testing import CliRunner

from vireo.cli.app import app

FILE = Path(__file__).parents[1] / "docs" / "reference" / "cli.md"
WIDTH = 100

INTRODUCTION = """# The command `vireo`

Made from the commands' own help by `./dev docs`; don't edit.
"""


def reference() -> str:
    """One section for each command, in the order of the help."""
    sections = [
        f"## {' '.join(('vireo', *path))}\n\n```text\n{_help(path)}```\n"
        for path in _paths(typer.main.get_command(app), ())
    ]
    return "\n".join([INTRODUCTION, *sections])


def _paths(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield path
    for name, inner in getattr(command, "commands", {}).items():
        yield from _paths(inner, (*path, name))


def _help(path: tuple[str, ...]) -> str:
    shown = CliRunner().invoke(
        app, [*path, "--help"], prog_name="vireo", terminal_width=WIDTH, max_content_width=WIDTH
    )
    lines = (line.rstrip() for line in shown.output.splitlines())
    return "\n".join(lines).strip("\n") + "\n"


def main() -> None:
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
