"""Which hosts `vireo up` says to be missing: only what the gateway said itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.gateway_standin import TOKEN, Gateway, host, serving
from vireo.standalone import up
from vireo.standalone.options import HostOption, UpOptions


def options(folder: Path, url: str, *hosts: str) -> UpOptions:
    given = tuple(HostOption(name=name, uri="test:///default") for name in hosts)
    return UpOptions(state_dir=folder, hosts=given, gateway_port=int(url.rsplit(":", 1)[1]))


@pytest.fixture(name="folder")
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory with a token, and little patience."""
    monkeypatch.setattr(up, "ONLINE_S", 1.0)
    file = options(tmp_path, "http://127.0.0.1:1").admin_token_file
    file.parent.mkdir(parents=True)
    file.write_text(TOKEN)
    return tmp_path


async def test_a_host_that_is_not_online_is_named(folder: Path) -> None:
    gateway = Gateway()
    gateway.hosts = {"h1": host("h1")}
    async with serving(gateway) as url:
        assert await up._not_online(options(folder, url, "h1", "h2")) == ("h2",)


async def test_without_the_tokens_file_nothing_is_said_of_hosts(folder: Path) -> None:
    options(folder, "http://127.0.0.1:1").admin_token_file.unlink()
    async with serving(Gateway()) as url:
        assert await up._not_online(options(folder, url, "h1")) == ()


async def test_a_token_that_is_valid_no_more_says_nothing_of_hosts(folder: Path) -> None:
    options(folder, "http://127.0.0.1:1").admin_token_file.write_text("vireo_revoked")
    async with serving(Gateway()) as url:
        assert await up._not_online(options(folder, url, "h1")) == ()


async def test_a_gateway_that_gives_no_answer_says_nothing_of_hosts(folder: Path) -> None:
    assert await up._not_online(options(folder, "http://127.0.0.1:1", "h1")) == ()
