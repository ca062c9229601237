"""What `vireo up` says once everything runs, and the context that it keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import structs

from vireo.cli.up import _announce
from vireo.contexts import Context, Contexts, contexts_file, load, save
from vireo.standalone.up import Ready

SECRET = "vireo_never-shown"


@pytest.fixture(name="ready")
def _ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ready:
    """Everything runs, and there are no contexts yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    token = tmp_path / "admin.token"
    token.write_text(SECRET)
    return Ready(
        url="http://127.0.0.1:1",
        metrics_url="http://127.0.0.1:2/metrics",
        admin_token_file=token,
        log_dir=tmp_path,
        pids={},
    )


def kept(tmp_path: Path) -> Contexts:
    return load(contexts_file({"XDG_CONFIG_HOME": str(tmp_path / "config")}))


def test_it_says_where_and_what_next_and_puts_no_token_into_a_pipe(
    ready: Ready, capsys: pytest.CaptureFixture[str]
) -> None:
    _announce(ready, first=True)
    said = capsys.readouterr().out
    assert f"gateway   {ready.url}\n" in said
    assert f"in {ready.admin_token_file}" in said
    assert f"metrics   {ready.metrics_url}\n" in said
    assert "\n  vireo vm create web1" in said
    assert SECRET not in said


def test_a_host_that_is_not_there_is_told_with_its_log(
    ready: Ready, capsys: pytest.CaptureFixture[str]
) -> None:
    _announce(structs.replace(ready, missing=("h2",)), first=False)
    log = ready.log_dir / "hostagent-h2.log"
    assert f"warning   host h2 takes no VMs yet: {log} says why\n" in capsys.readouterr().out


def test_it_keeps_a_context_that_is_current_where_none_was(ready: Ready, tmp_path: Path) -> None:
    _announce(ready, first=False)
    context = Context(url=ready.url, token_file=str(ready.admin_token_file))
    assert kept(tmp_path) == Contexts(current="local", contexts={"local": context})


def test_it_leaves_the_current_context_current(
    ready: Ready, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = Contexts(current="home", contexts={"home": Context(url="http://home")})
    save(contexts_file({"XDG_CONFIG_HOME": str(tmp_path / "config")}), mine)
    _announce(ready, first=False)
    assert kept(tmp_path).current == "home"
    assert "\n  vireo --context local host list" in capsys.readouterr().out


def test_it_leaves_a_context_of_somebodys_own(
    ready: Ready, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = Contexts(
        current="home",
        contexts={
            "home": Context(url="http://home"),
            "local": Context(url="http://mine", token="mine"),
        },
    )
    save(contexts_file({"XDG_CONFIG_HOME": str(tmp_path / "config")}), mine)
    _announce(ready, first=False)
    assert kept(tmp_path) == mine
    said = capsys.readouterr()
    assert "left as it is" in said.err
    assert f"VIREO_URL={ready.url} VIREO_TOKEN=" in said.out
    assert SECRET not in said.out
