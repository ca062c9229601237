"""What `vireo init` writes: folders that hold all that one process needs, and nobody else's secret."""

from __future__ import annotations

import json
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest

from chassis.settings import load
from tests.every_service import SETTINGS
from vireo.deployment.plan import DeploymentOptions, TlsFiles, files, secret_names
from vireo.deployment.write import write

OPTIONS = DeploymentOptions(hosts=("h1", "h2"), nats_url="nats://bus:4222")
PASSWORDS = {name: f"secret-of-{name}" for name in secret_names(OPTIONS)}
FILES = files(OPTIONS, PASSWORDS)


@pytest.mark.parametrize("path", [path for path in FILES if path.endswith(".toml")])
def test_each_service_accepts_the_settings_written_for_it(path: str, tmp_path: Path) -> None:
    service = Path(path).stem
    file = tmp_path / "settings.toml"
    file.write_text(FILES[path])
    settings = load(SETTINGS[service], service=service, file=file, environ={})
    assert settings.nats.urls == ("nats://bus:4222",)


@pytest.mark.parametrize("name", ["gateway", "scheduler", "metrics", "hostagent-h1"])
def test_a_folder_holds_no_secret_of_another_process(name: str) -> None:
    own = "\n".join(text for path, text in FILES.items() if path.startswith(f"{name}/"))
    assert f"secret-of-{name}" in own
    others = PASSWORDS.keys() - {name, f"postgres-{name}"}
    assert not [other for other in sorted(others) if f"secret-of-{other}\n" in own]


def test_nobody_but_the_operator_may_do_everything() -> None:
    server: dict[str, Any] = json.loads(FILES["nats/nats.conf"])
    mighty = [
        user["user"]
        for user in server["authorization"]["users"]
        if ">" in user["permissions"]["publish"]["allow"]
    ]
    assert mighty == ["operator"]


def test_an_agent_may_speak_under_its_own_name_only() -> None:
    server: dict[str, Any] = json.loads(FILES["nats/nats.conf"])
    agent = next(u for u in server["authorization"]["users"] if u["user"] == "hostagent-h1")
    subjects = [
        *agent["permissions"]["publish"]["allow"],
        *agent["permissions"]["subscribe"]["allow"],
    ]
    assert not [subject for subject in subjects if "h2" in subject or subject == ">"]
    assert "vireo.evt.default.h1.>" in subjects


def test_with_tls_every_process_is_told_whom_to_trust() -> None:
    tls = TlsFiles(certificate="/t/server.pem", key="/t/server.key", ca="/t/ca.pem")
    with_tls = files(DeploymentOptions(hosts=("h1",), nats_tls=tls), PASSWORDS)
    assert json.loads(with_tls["nats/nats.conf"])["tls"]["ca_file"] == "/t/ca.pem"
    agent = tomllib.loads(with_tls["hostagent-h1/hostagent.toml"])
    assert agent["nats"]["tls_ca_file"] == "/etc/vireo/ca.pem"


def test_a_second_run_keeps_the_passwords_and_adds_the_new_host(tmp_path: Path) -> None:
    write(tmp_path / "d", DeploymentOptions(hosts=("h1",)))
    before = (tmp_path / "d/gateway/nats.password").read_text()
    write(tmp_path / "d", DeploymentOptions(hosts=("h1", "h2")))
    assert (tmp_path / "d/gateway/nats.password").read_text() == before
    assert (tmp_path / "d/hostagent-h2/nats.password").exists()


def test_only_their_owner_reads_the_files(tmp_path: Path) -> None:
    for path in write(tmp_path / "d", DeploymentOptions(hosts=("h1",))):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
