"""The embedded nats-server: its configuration as a value. Pure; `plan` says how it is started."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from vireo.standalone.permissions import OPERATOR, Permissions

ADDRESS = "127.0.0.1"
OPERATOR_USER = "operator"
MAX_MEMORY_BYTES = 256 << 20
MAX_FILE_BYTES = 32 << 30
MAX_PAYLOAD_BYTES = 1 << 20
ANSWER_WITHIN = "6m"
"""How long a service may take to answer a request; the longest waits on an operation are five minutes."""


def config(
    *,
    address: str = ADDRESS,
    port: int,
    store_dir: str,
    users: Mapping[str, Permissions],
    passwords: Mapping[str, str],
    tls: Mapping[str, str] | None = None,
) -> str:
    """The server's configuration file. JSON is a subset of its format.

    Holds passwords: written with mode 0600.
    """
    settings: dict[str, Any] = {
        "server_name": "vireo",
        "listen": f"{address}:{port}",
        "max_payload": MAX_PAYLOAD_BYTES,
        "jetstream": {
            "store_dir": store_dir,
            "max_memory_store": MAX_MEMORY_BYTES,
            "max_file_store": MAX_FILE_BYTES,
            # Acknowledged means on disk.
            "sync_interval": "always",
        },
        "authorization": {
            "users": [
                _user(name, passwords[name], allowed)
                for name, allowed in [*sorted(users.items()), (OPERATOR_USER, OPERATOR)]
            ]
        },
    }
    if tls is not None:
        settings["tls"] = dict(tls)
    return msgspec.json.format(msgspec.json.encode(settings).decode(), indent=2) + "\n"


def _user(name: str, password: str, allowed: Permissions) -> dict[str, Any]:
    return {
        "user": name,
        "password": password,
        "permissions": {
            "publish": {"allow": list(allowed.publish)},
            "subscribe": {"allow": list(allowed.subscribe)},
            # Requests name the subject of their answer; that alone may be answered, for a while.
            "allow_responses": {"max": 1, "expires": ANSWER_WITHIN},
        },
    }


def natscli_context(*, url: str, password: str) -> str:
    """A context for natscli: what `nats --context vireo` reads. Holds a password."""
    context = {
        "description": "Vireo",
        "url": url,
        "user": OPERATOR_USER,
        "password": password,
    }
    return msgspec.json.format(msgspec.json.encode(context).decode(), indent=2) + "\n"
