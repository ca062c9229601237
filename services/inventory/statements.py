"""The inventory's SQL by its names: what is as of now, and how it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from chassis.postgres import load_queries


def statements() -> Mapping[str, str]:
    folder = Path(__file__).parent
    return {**load_queries(folder / "queries.sql"), **load_queries(folder / "history.sql")}
