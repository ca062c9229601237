"""The settings of every service, for tests that hold documents and deployments against them."""

from __future__ import annotations

from chassis.settings import ChassisSettings
from services.gateway.settings import GatewaySettings
from services.hostagent.settings import Settings as HostagentSettings
from services.inventory.settings import InventorySettings
from services.metrics.settings import MetricsSettings
from services.scheduler.settings import SchedulerSettings

SETTINGS: dict[str, type[ChassisSettings]] = {
    "gateway": GatewaySettings,
    "hostagent": HostagentSettings,
    "inventory": InventorySettings,
    "metrics": MetricsSettings,
    "scheduler": SchedulerSettings,
}
