"""From values to the terminal or the pipe: the four output formats."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from vireo.cli.layout import Page, Section, Table, plain_page, plain_table
from vireo.cli.words import printable

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table as RichTable
    from rich.text import Text


class Output(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"

    @property
    def is_data(self) -> bool:
        """For programs: exactly the resource, nothing else on standard output."""
        return self in (Output.JSON, Output.YAML)


MOST_WIDTH = 4000
"""Cells beyond which a row is cut: names and ids are far shorter."""

_STYLES = {
    "running": "green",
    "online": "green",
    "succeeded": "green",
    "paused": "yellow",
    "scheduled": "cyan",
    "accepted": "cyan",
    "creating": "cyan",
    "deleting": "yellow",
    "maintenance": "yellow",
    "silent": "red",
    "crashed": "red",
    "failed": "red",
}


def show_data(value: Any, output: Output) -> None:
    """A resource, or a list of them, as JSON or YAML."""
    sys.stdout.write(data_text(value, output))


def show_record(raw: bytes, output: Output) -> None:
    """One of an endless row of resources, as its bytes are: a line of JSON, or a document of YAML."""
    if output is Output.JSON:
        text = raw.decode(errors="replace") + "\n"
    else:
        text = "---\n" + data_text(msgspec.json.decode(raw), output)
    sys.stdout.write(text)
    sys.stdout.flush()


def data_text(value: Any, output: Output) -> str:
    if output is Output.JSON:
        return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"
    import yaml

    plain = msgspec.to_builtins(value, str_keys=True)
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def show_table(table: Table, *, empty: str) -> None:
    """A table, or in its place `empty` on standard error, so that a pipe gets nothing but rows."""
    if not table.rows and sys.stdout.isatty():
        sys.stderr.write(f"{empty}\n")
    elif sys.stdout.isatty():
        _show_whole(_rich_table(table))
    else:
        sys.stdout.write(plain_table(table))


def _show_whole(table: RichTable) -> None:
    """Each row on one line, which a narrow terminal wraps by itself: an id that was broken into cells
    could not be copied."""
    for column in table.columns:
        column.no_wrap = True
    console = _console()
    boundless = console.options.update(width=MOST_WIDTH)
    width = max(console.width, console.measure(table, options=boundless).maximum)
    # Both: rich takes a terminal that calls itself dumb for 80 columns unless it is told the height, too.
    console.size = (width, console.height)
    console.print(table)


def show_page(page: Page) -> None:
    if not sys.stdout.isatty():
        sys.stdout.write(plain_page(page))
        return
    _console().print(rich_page(page))


def rich_page(page: Page, *, foot: str = "", cut: bool = False) -> Group:
    """A page for a terminal; `foot` stands beneath it, if there is one. `cut`: rows of tables are cut to
    the width there is, where they would else take several lines."""
    from rich.console import Group

    parts: list[RichTable | Text] = [_styled(page.title, "bold")]
    for section in page.sections:
        parts += (_styled(""), _styled(section.title, "bold cyan"), *_rich_parts(section, cut=cut))
    return Group(*parts, *((_styled(foot, "dim"),) if foot else ()))


def show_lines(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(f"{printable(line)}\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Something for people, beside the output; may have several lines."""
    for line in text.split("\n"):
        sys.stderr.write(f"{printable(line)}\n")
    sys.stderr.flush()


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False)


def _rich_parts(section: Section, *, cut: bool) -> list[RichTable]:
    from rich.table import Table as RichTable

    parts = []
    if section.facts:
        facts = RichTable(box=None, show_header=False, padding=(0, 1))
        facts.add_column(style="dim", no_wrap=True)
        facts.add_column(overflow="fold")
        for name, value in section.facts:
            facts.add_row(_styled(name), _cell(value))
        parts.append(facts)
    if section.table is not None:
        parts.append(_rich_table(section.table, cut=cut))
    return parts


def _rich_table(table: Table, *, cut: bool = False) -> RichTable:
    from rich.table import Table as RichTable

    shown = RichTable(box=None, header_style="bold", padding=(0, 1))
    for column in table.columns:
        shown.add_column(column.upper(), overflow="ellipsis" if cut else "fold", no_wrap=cut)
    for row in table.rows:
        shown.add_row(*(_cell(cell) for cell in row))
    return shown


def _cell(text: str) -> Text:
    return _styled(text, _STYLES.get(text, ""))


def _styled(text: str, style: str = "") -> Text:
    from rich.text import Text

    # Text and never a string: rich reads markup in strings, and names may look like markup.
    return Text(printable(text), style=style)
