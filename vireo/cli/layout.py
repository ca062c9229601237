"""What is shown, as values: tables and sections. Pure; `printing` puts them on a terminal or a pipe."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from vireo.cli.words import printable


class Table(Struct, frozen=True, kw_only=True):
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


TERMINAL_GAP = 2
"""Cells that a column of a table takes on a terminal beside its text."""


def narrowed(table: Table, *, width: int, spare: Sequence[Sequence[str]]) -> Table:
    """The table without as many of its spare columns, the first ones first, as it takes to fit."""
    for names in spare:
        if _width(table) <= width:
            break
        kept = [i for i, name in enumerate(table.columns) if name not in names]
        table = Table(
            columns=tuple(table.columns[i] for i in kept),
            rows=tuple(tuple(row[i] for i in kept) for row in table.rows),
        )
    return table


def _width(table: Table) -> int:
    columns = zip(table.columns, *table.rows, strict=True)
    return sum(max(len(printable(cell)) for cell in column) + TERMINAL_GAP for column in columns)


class Section(Struct, frozen=True, kw_only=True):
    """A titled part of a page: facts by name, then a table."""

    title: str
    facts: tuple[tuple[str, str], ...] = ()
    table: Table | None = None


class Page(Struct, frozen=True, kw_only=True):
    """All about one thing."""

    title: str
    sections: tuple[Section, ...]


def plain_table(table: Table, *, indent: str = "") -> str:
    """Columns two spaces apart; every line ends with a newline."""
    lines = [tuple(name.upper() for name in table.columns), *table.rows]
    clean = [tuple(printable(cell) for cell in line) for line in lines]
    widths = [max(len(line[i]) for line in clean) for i in range(len(table.columns))]
    return "".join(
        indent
        + "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        + "\n"
        for line in clean
    )


def plain_page(page: Page) -> str:
    return printable(page.title) + "\n" + "".join(_plain_section(s) for s in page.sections)


def _plain_section(section: Section) -> str:
    width = max((len(name) for name, _ in section.facts), default=0)
    facts = "".join(f"  {name.ljust(width)}  {printable(value)}\n" for name, value in section.facts)
    table = "" if section.table is None else plain_table(section.table, indent="  ")
    return f"\n{section.title}\n{facts}{table}"
