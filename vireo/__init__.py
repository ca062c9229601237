"""What people hold: the SDK (`vireo.Client`) and the command line (`vireo.cli`).

The SDK stands on `schemas` and httpx alone, so that a program that drives Vireo installs no server
code. Names are loaded when first used: the command line must not pay for what a command doesn't need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vireo.client import Client
    from vireo.errors import (
        Conflict,
        Forbidden,
        Invalid,
        NotFound,
        OperationFailed,
        TimedOut,
        Unauthenticated,
        Unavailable,
        VireoError,
    )
    from vireo.events import StreamedEvent
    from vireo.operations import PendingOperation
    from vireo.settings import ClientSettings

__all__ = [
    "Client",
    "ClientSettings",
    "Conflict",
    "Forbidden",
    "Invalid",
    "NotFound",
    "OperationFailed",
    "PendingOperation",
    "StreamedEvent",
    "TimedOut",
    "Unauthenticated",
    "Unavailable",
    "VireoError",
]

_HOME = {
    "Client": "vireo.client",
    "ClientSettings": "vireo.settings",
    "PendingOperation": "vireo.operations",
    "StreamedEvent": "vireo.events",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'vireo' has no attribute {name!r}")
    return getattr(import_module(_HOME.get(name, "vireo.errors")), name)
