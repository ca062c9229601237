"""What `vireo up` would start and write: settings by service, permissions by user, no secrets in argv."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from vireo.standalone import hypervisors, permissions, plan
from vireo.standalone.credentials import ensure_passwords, write_private
from vireo.standalone.nats import natscli_context
from vireo.standalone.options import (
    BadOption,
    HostOption,
    UpOptions,
    default_state_dir,
    host_option,
)
from vireo.standalone.plan import Plan, Programs
from vireo.standalone.postgres import Place

STATE = Path("/state")
OPTIONS = UpOptions(
    state_dir=STATE,
    hosts=(
        HostOption(name="h1", uri="test:///default"),
        HostOption(name="h2", uri="qemu:///system"),
    ),
    site="wood",
    gateway_port=9000,
    nats_port=4333,
    settings={"hostagent": {"domain_type": "qemu"}, "gateway": {"limits": {"streams": 3}}},
)
PROGRAMS = Programs(python="/venv/python", nats_server="/venv/nats-server", setpriv="/bin/setpriv")
PLACE = Place(directory=STATE / "postgres", programs=Path("/pg"), user="vireo", group=7)


def planned() -> Plan:
    passwords = {name: f"secret of {name}" for name in plan.secret_names(OPTIONS)}
    return plan.plan_children(OPTIONS, programs=PROGRAMS, place=PLACE, passwords=passwords)


def toml(name: str) -> dict[str, Any]:
    files = {file.path: file.text for file in planned().files}
    return tomllib.loads(files[STATE / "config" / f"{name}.toml"])


def test_servers_come_first_and_every_host_has_an_agent() -> None:
    children = planned().children
    assert [child.name for child in children] == [
        "nats",
        "postgres",
        "inventory",
        "scheduler",
        "metrics",
        "gateway",
        "hostagent-h1",
        "hostagent-h2",
    ]
    assert {child.name: child.after for child in children if child.after} == {
        "inventory": ("nats", "postgres"),
        "scheduler": ("nats",),
        "metrics": ("nats", "postgres"),
        "gateway": ("nats",),
        "hostagent-h1": ("nats", "scheduler"),
        "hostagent-h2": ("nats", "scheduler"),
    }


def test_the_metrics_service_is_scraped_where_one_says() -> None:
    assert toml("metrics")["prometheus"] == {"host": "127.0.0.1", "port": 9470}
    assert OPTIONS.metrics_url == "http://127.0.0.1:9470/metrics"
    assert replace(OPTIONS, metrics_port=0).metrics_url is None
    of_ones_own = {"metrics": {"prometheus": {"port": 9999}}}
    assert replace(OPTIONS, settings=of_ones_own).metrics_url is None


def test_no_secret_stands_in_a_command_line_or_in_an_environment() -> None:
    for child in planned().children:
        assert "secret of" not in " ".join(child.argv) + str(dict(child.environment))


def test_a_services_settings_name_its_user_its_inbox_and_its_password_file() -> None:
    assert toml("hostagent-h1") == {
        "site": "wood",
        "host": "h1",
        "libvirt_uri": "test:///default",
        "data_dir": "/state/hosts/h1",
        "image_dir": "/state/images",
        "domain_type": "qemu",
        "nats": {
            "urls": ["nats://127.0.0.1:4333"],
            "user": "hostagent-h1",
            "password_file": "/state/credentials/hostagent-h1.password",
            "inbox_prefix": "_INBOX_hostagent-h1",
        },
        "log": {"level": "info", "format": "json"},
    }
    assert toml("gateway")["limits"] == {"streams": 3}
    assert toml("gateway")["admin_token_file"] == "/state/credentials/admin.token"
    assert toml("inventory")["postgres"] == {
        "host": "/state/postgres/socket",
        "port": 5432,
        "database": "vireo",
        "user": "inventory",
        "password_file": "/state/credentials/inventory.password",
    }


def test_postgres_listens_on_its_socket_only_and_runs_as_its_own_user() -> None:
    [postgres] = [child for child in planned().children if child.name == "postgres"]
    assert postgres.argv[:5] == (
        *("/bin/setpriv", "--reuid=vireo", "--regid=7", "--init-groups", "--pdeathsig=INT"),
    )
    assert "listen_addresses=" in postgres.argv
    assert "unix_socket_directories=/state/postgres/socket" in postgres.argv


def test_the_bus_listens_on_loopback_only_and_writes_before_it_acknowledges() -> None:
    [text] = [file.text for file in planned().files if file.path.name == "nats.conf"]
    config = msgspec.json.decode(text)
    assert config["listen"] == "127.0.0.1:4333"
    assert config["jetstream"]["sync_interval"] == "always"
    users = {user["user"]: user for user in config["authorization"]["users"]}
    assert sorted(users) == [
        *("gateway", "hostagent-h1", "hostagent-h2", "inventory", "metrics", "operator"),
        "scheduler",
    ]
    assert users["hostagent-h1"]["password"] == "secret of hostagent-h1"


def test_an_agent_speaks_under_its_own_name_only_and_makes_no_consumers() -> None:
    agent = permissions.of_agent(site="wood", host="h1", user="hostagent-h1")
    assert all("h1" in subject for subject in agent.publish)
    assert not any("CREATE" in subject or "STREAM" in subject for subject in agent.publish)
    assert agent.subscribe == (
        "_INBOX_hostagent-h1.>",
        "$SRV.*",
        "$SRV.*.hostagent",
        "$SRV.*.hostagent.*",
        "vireo.rpc.wood.h1.>",
    )


@pytest.mark.parametrize("service", plan.SITE_SERVICES)
def test_no_service_may_delete_a_stream_or_speak_for_another(service: str) -> None:
    allowed = permissions.of_service(service, user=service).publish
    assert not any(subject.startswith("$JS.API.STREAM.DELETE") for subject in allowed)
    assert [s for s in allowed if s.startswith("vireo.evt.")] == [f"vireo.evt.*.{service}.>"]
    assert ("vireo.cmd.>" in allowed) == (service == "gateway")


@pytest.mark.parametrize("text", ["h1", "=qemu:///system", "H1=qemu:///system", "h1=", "a.b=x"])
def test_a_host_that_is_not_name_and_uri_is_refused(text: str) -> None:
    with pytest.raises(BadOption, match="--host"):
        host_option(text)


def test_a_host_is_a_name_and_a_uri_that_may_hold_equal_signs() -> None:
    uri = "qemu+unix:///system?socket=/tmp/h1/libvirt-sock"
    assert host_option(f"h1={uri}") == HostOption(name="h1", uri=uri)


def test_state_is_kept_where_the_user_keeps_state() -> None:
    assert default_state_dir({}, root=True) == Path("/var/lib/vireo")
    assert default_state_dir({"HOME": "/home/me"}, root=False) == Path(
        "/home/me/.local/state/vireo"
    )
    assert default_state_dir({"XDG_STATE_HOME": "/s"}, root=False) == Path("/s/vireo")
    assert default_state_dir({"VIREO_STATE_DIR": "/x"}, root=True) == Path("/x")


def test_passwords_are_made_once_and_read_by_their_owner_only(tmp_path: Path) -> None:
    first = ensure_passwords(tmp_path / "credentials", ["gateway", "operator"])
    again = ensure_passwords(tmp_path / "credentials", ["operator", "gateway"])
    assert first == again
    assert len(set(first.values())) == 2
    assert all(len(password) > 40 for password in first.values())
    for file in (tmp_path / "credentials").iterdir():
        assert file.stat().st_mode & 0o777 == 0o600


def test_a_private_file_that_was_open_to_others_is_closed_again(tmp_path: Path) -> None:
    file = tmp_path / "vireo.json"
    file.write_text("old")
    file.chmod(0o644)
    write_private(file, natscli_context(url="nats://a:4222", password="song"))
    assert file.stat().st_mode & 0o777 == 0o600
    assert msgspec.json.decode(file.read_bytes())["user"] == "operator"


def test_a_machine_without_libvirt_gets_the_test_driver(tmp_path: Path) -> None:
    host = hypervisors.this_machine(root=True, sockets=(tmp_path / "none",))
    assert host.uri == "test:///default"


def test_a_machines_name_becomes_a_hosts_name() -> None:
    assert hypervisors.host_name("Node_7.example.org") == "node-7"
    assert hypervisors.host_name("---") == "host"
    assert hypervisors.host_name("x" * 80) == "x" * 63
