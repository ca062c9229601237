"""Start the agent: `python -m services.hostagent`."""

from __future__ import annotations

from chassis import run
from services.hostagent.handlers import build
from services.hostagent.settings import Settings

if __name__ == "__main__":
    # The streams are the others' to make: an agent may not, and waits for them.
    run.main("hostagent", Settings, build, make_streams=False, wait_for_bus=False)
