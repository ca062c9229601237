"""The reference of settings is what the settings say, and says something of each."""

from __future__ import annotations

import pytest

from chassis.settings_reference import reference, undescribed
from deploy.settings_reference import FILE, SETTINGS


def test_the_reference_is_up_to_date() -> None:
    assert FILE.read_text(encoding="utf-8") == reference(SETTINGS), "run ./dev docs"


@pytest.mark.parametrize("service", sorted(SETTINGS))
def test_every_setting_is_described(service: str) -> None:
    assert undescribed(SETTINGS[service]) == []
