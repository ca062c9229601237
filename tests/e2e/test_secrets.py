"""No secret of the system lies anywhere but in its own file."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.fixtures.plane import Site
from vireo import Client

OWN = ("credentials", "config")
"""Where secrets are kept, readable by their owner alone: see the tests of `vireo up`."""


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
