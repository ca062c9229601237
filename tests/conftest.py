"""Makes every module of `tests/fixtures` known to all tests, and lets properties take their time."""

from __future__ import annotations

from pathlib import Path

from hypothesis import settings

pytest_plugins = [
    f"tests.fixtures.{module.stem}"
    for module in sorted((Path(__file__).parent / "fixtures").glob("[a-z]*.py"))
]

# How long an example takes says more of the machine than of the code.
settings.register_profile("unhurried", settings.default, deadline=None)
settings.load_profile("unhurried")
