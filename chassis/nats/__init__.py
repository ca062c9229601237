"""The bus on NATS JetStream. `connect` is the way in; the rest of the package is its inside."""

from chassis.nats.bus import NatsBus
from chassis.nats.connect import connect
from chassis.nats.settings import NatsSettings

__all__ = ["NatsBus", "NatsSettings", "connect"]
