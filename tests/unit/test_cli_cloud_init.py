"""What a request for a VM says to cloud-init: of the spec's file, of options, of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vireo import guest_agent
from vireo.cli import cloud_init

AGENT = guest_agent.files()


@pytest.mark.parametrize(
    ("base", "given", "expected"),
    [
        (None, {}, None),
        ({"user_data": "a"}, {}, {"user_data": "a"}),
        (
            {"user_data": "a", "meta_data": "b"},
            {"user_data": "c"},
            {"user_data": "c", "meta_data": "b"},
        ),
        ("nonsense", {"user_data": "c"}, "nonsense"),
    ],
    ids=["nothing", "of the file", "options go before the file", "left to the server"],
)
def test_options_go_before_what_the_file_says(
    base: Any, given: dict[str, str], expected: Any
) -> None:
    assert cloud_init.over(base, given, guest_agent=False) == expected


def test_the_guest_agent_comes_alone_or_beside_what_is_said() -> None:
    alone = cloud_init.over(None, {}, guest_agent=True)
    assert alone == {"user_data": guest_agent.cloud_config(*AGENT)}
    said = {"user_data": "#!/bin/sh\n", "meta_data": "instance-id: one"}
    beside = cloud_init.over(said, {}, guest_agent=True)
    assert beside == {
        "user_data": guest_agent.user_data(*AGENT, beside="#!/bin/sh\n"),
        "meta_data": "instance-id: one",
    }


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    there = tmp_path / "user-data"
    there.write_text("#cloud-config\n")
    assert cloud_init.read(user_data=str(there), meta_data=None) == {"user_data": "#cloud-config\n"}
    with pytest.raises(ValueError, match=r"cannot read .*nowhere"):
        cloud_init.read(user_data=str(tmp_path / "nowhere"))
