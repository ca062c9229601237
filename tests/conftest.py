"""Makes every module of `tests/fixtures` known to all tests."""

from __future__ import annotations

from pathlib import Path

pytest_plugins = [
    f"tests.fixtures.{module.stem}"
    for module in sorted((Path(__file__).parent / "fixtures").glob("[a-z]*.py"))
]
