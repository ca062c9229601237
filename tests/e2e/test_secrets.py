"""No secret of the system lies anywhere but in its own file."""

from __future__ import annotations

import secrets as randomness
import stat
from pathlib import Path

import httpx

from tests.fixtures.plane import BOOT_S, MEMORY_MIB, Site, until
from vireo import Client

OWN = ("credentials", "config")
"""Where secrets are kept, readable by their owner alone: see the tests of `vireo up`."""

NEEDED = ("/streams/COMMANDS/", "/streams/KV_FLEET/", "/journal.sqlite", "/seed.iso")
"""On its way to a guest: the command, its host's assignment, what the agent remembers of that, the seed."""


def secrets_of(site: Site) -> dict[str, bytes]:
    files = (site.plane.state_dir / "credentials").iterdir()
    return {file.name: file.read_bytes().strip() for file in files}


async def test_no_secret_is_found_in_logs_streams_tables_or_traces(
    site: Site, client: Client
) -> None:
    before = await site.last_sequence()
    vm = await site.created(client, "plain", host="h1", power="stopped")
    await client.hosts.configure("h1", labels={"rack": "a1"}, wait=10)
    await _is_refused(site)
    await site.delete(client, vm.id)
    await site.check_nothing_lost(after=before)
    secrets = secrets_of(site)
    assert {"admin.token", "operator.password", "inventory.password"} <= secrets.keys()

    files = files_below(site.plane.state_dir)
    searched = {file.relative_to(site.plane.state_dir).parts[0] for file in files}
    assert {"up.log", "traces.jsonl", "logs", "nats", "postgres", "hosts"} <= searched
    found = [
        (str(file), name)
        for file in files
        if (content := _content(file))
        for name, secret in secrets.items()
        if secret in content
    ]
    assert found == []
    archived = site.cli("audit", "export", "--vm", vm.id).encode()
    assert [name for name, secret in secrets.items() if secret in archived] == []
    tables = await _tables(site)
    assert {"events", "vm_versions", "vm_documents", "operation_versions"} <= tables.keys()
    assert [
        (table, name)
        for table, text in tables.items()
        for name, secret in secrets.items()
        if secret.decode() in text or secret.hex() in text
    ] == []


async def test_what_is_for_cloud_init_is_where_its_host_needs_it_and_nowhere_else(
    site: Site, client: Client, tmp_path: Path
) -> None:
    secret = f"password-{randomness.token_hex(16)}"
    user_data = tmp_path / "user-data"
    user_data.write_text(f"#!/bin/sh\nhostname from-user-data # {secret}\n")
    before = await site.last_sequence()
    options = ("--image", "tiny", "--memory", f"{MEMORY_MIB}MiB", "--user-data", str(user_data))
    said = site.cli("vm", "create", "seeded", *options)
    vm = await client.vms.get("seeded")

    async def obeyed() -> bool:
        found = await client.vms.get(vm.id)
        return found.guest is not None and found.guest.hostname == "from-user-data"

    await until(obeyed, "the guest has done what its user-data says", timeout_s=BOOT_S)
    holding = [
        file for file in files_below(site.plane.state_dir) if secret.encode() in _content(file)
    ]
    assert [file for file in holding if file.name == "seed.iso" and file.parent.name == vm.id]
    assert [file for file in holding if not any(place in str(file) for place in NEEDED)] == []
    on_host = [file for file in holding if "streams" not in file.parts]
    assert {stat.S_IMODE(file.stat().st_mode) for file in on_host} == {0o600}
    told = await site.check_nothing_lost(after=before)
    shown = (
        said,
        site.cli("vm", "show", "seeded"),
        site.cli("vm", "show", "seeded", "-o", "json"),
        site.cli("operation", "show", vm.operation or "", "-o", "json"),
        site.cli("audit", "export", "--vm", vm.id),
        site.virsh(vm.host, "dumpxml", vm.id),
        repr(told),
        *(await _tables(site)).values(),
    )
    assert [text for text in shown if secret in text or secret.encode().hex() in text] == []
    assert "cloud-init  given at its creation" in shown[1]

    site.cli("vm", "stop", "seeded", "--force")
    site.cli("vm", "start", "seeded")
    await site.delete(client, vm.id)
    assert [file for file in site.files_of(vm.id) if file.name == "seed.iso"] == []


async def _tables(site: Site) -> dict[str, str]:
    """Every table of the inventory as text, its bytes in hexadecimal."""
    names = await site.rows(
        "select format('%I.%I', table_schema, table_name) as place, table_name as name"
        " from information_schema.tables"
        " where table_schema not in ('pg_catalog', 'information_schema') and table_type = 'BASE TABLE'"
    )
    found: dict[str, str] = {}
    for table in names:
        rows = await site.rows(f"select t::text as text from {table['place']} as t")
        found[table["name"]] = "\n".join(row["text"] for row in rows)
    return found


def files_below(directory: Path) -> list[Path]:
    """Logs, traces, the streams' and Postgres' own files: all but where secrets belong."""
    own = {directory / name for name in OWN}
    return [
        file
        for file in directory.rglob("*")
        if file.is_file() and not own.intersection(file.parents) and "programs-" not in str(file)
    ]


def _content(file: Path) -> bytes:
    """Files come and go in a running system."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


async def _is_refused(site: Site) -> None:
    """A wrong token, a token in the wrong place, a body that is none: what is refused is not kept."""
    token = site.plane.token
    async with httpx.AsyncClient(base_url=site.plane.url) as http:
        for headers, query in (
            ({"Authorization": f"Bearer {token}x"}, ""),
            ({"Authorization": token}, ""),
            ({}, f"?access_token={token}"),
        ):
            answer = await http.get(f"/v1/vms{query}", headers=headers)
            assert answer.status_code == 401
        answer = await http.post(
            "/v1/vms",
            headers={"Authorization": f"Bearer {token}", "Idempotency-Key": "k"},
            content=b"{not json",
        )
        assert answer.status_code == 400
        assert token not in answer.text
