"""The guide to VM specs: what it shows is understood."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from schemas.requests import VmRequest
from schemas.rules import HostRules
from services.gateway.checks import request_errors
from services.gateway.validation import Invalid, read_body
from services.hostagent.settings import Settings
from vireo.cli.spec_file import parse_spec

GUIDE = (Path(__file__).parents[2] / "docs" / "vm-specs.md").read_text()
SPECS = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)


@pytest.mark.parametrize("text", SPECS, ids=lambda text: text.splitlines()[0])
def test_every_spec_is_good(text: str) -> None:
    body = msgspec.json.encode(parse_spec(text, "guide").values)

    request = read_body(body, VmRequest)

    assert not isinstance(request, Invalid), request
    assert list(request_errors(request)) == []


def test_every_part_of_a_spec_s_rules_is_shown() -> None:
    shown = [parse_spec(text, "guide").values for text in SPECS]
    fields = {name for one in shown for name in one.get("on", {})}

    assert fields == set(HostRules.__struct_fields__) - {"host"}


def test_the_settings_of_a_host_are_good() -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)

    settings = msgspec.convert({"host": "h1", **tomllib.loads(text)}, Settings)

    assert settings.devices["10de:2204"] == "gpu"
    assert settings.pools["shared"] == "libvirt:nfs-images"
