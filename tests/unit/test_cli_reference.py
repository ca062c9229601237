"""The reference of the command line is what the commands' help says, whatever the terminal."""

from __future__ import annotations

import pytest

from deploy.cli_reference import FILE, reference


@pytest.mark.parametrize("columns", ["40", "200"])
def test_the_reference_is_up_to_date(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert FILE.read_text(encoding="utf-8") == reference(), "run ./dev docs"
