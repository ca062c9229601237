"""Writes `docs/reference/settings.md` from all settings: `python -m deploy.settings_reference`."""

from __future__ import annotations

from pathlib import Path

from chassis.settings import ChassisSettings
from chassis.settings_reference import reference
from services.gateway.settings import GatewaySettings
from services.hostagent.settings import Settings as HostagentSettings
from services.inventory.settings import InventorySettings
from services.metrics.settings import MetricsSettings
from services.scheduler.settings import SchedulerSettings

FILE = Path(__file__).parents[1] / "docs" / "reference" / "settings.md"

SETTINGS: dict[str, type[ChassisSettings]] = {
    "gateway": GatewaySettings,
    "scheduler": SchedulerSettings,
    "hostagent": HostagentSettings,
    "inventory": InventorySettings,
    "metrics": MetricsSettings,
}


def main() -> None:
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(reference(SETTINGS), encoding="utf-8")


if __name__ == "__main__":
    main()
