"""The way into the SDK: one `Client`, with the kinds of things as its rooms.

async with Client.from_environment() as client:
    operation = await client.vms.create(spec)
    await operation
    print((await client.vms.get("web1")).host)
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType

from vireo.alerts import Alerts
from vireo.audit import Audit
from vireo.contexts import Target, chosen
from vireo.definitions import policies, projects, rules, templates
from vireo.dry_runs import DryRuns
from vireo.events import Events
from vireo.hosts import Hosts
from vireo.inventory import Fleet, Inventory
from vireo.operations import Operations
from vireo.plans import Plans
from vireo.replays import Replays
from vireo.settings import ClientSettings
from vireo.subscriptions import Subscriptions
from vireo.transport import Transport
from vireo.vms import Vms


class DryRun:
    """The rooms of a client whose calls only ask."""

    def __init__(self, transport: Transport) -> None:
        asking = DryRuns(transport)
        self.vms = Vms(transport, asking)
        self.hosts = Hosts(transport, asking)
        self.alerts = Alerts(transport, asking)
        self.policies = policies(transport, asking)
        self.templates = templates(transport, asking)
        self.projects = projects(transport, asking)
        self.rules = rules(transport, asking)
        self.inventory = Inventory(transport, asking)
        self.fleet = Fleet(transport, asking)
        self.replays = Replays(transport, asking)


class Client:
    """A connection to a gateway, for one event loop; close it, or use it as a context manager.

    Raises ValueError if `url` is no gateway's address.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        ca_file: str | None = None,
        settings: ClientSettings | None = None,
    ) -> None:
        self._transport = Transport(url, token, settings or ClientSettings(), ca_file=ca_file)
        self.operations = Operations(self._transport)
        self.vms = Vms(self._transport, self.operations)
        self.hosts = Hosts(self._transport, self.operations)
        self.alerts = Alerts(self._transport, self.operations)
        self.policies = policies(self._transport, self.operations)
        self.templates = templates(self._transport, self.operations)
        self.projects = projects(self._transport, self.operations)
        self.rules = rules(self._transport, self.operations)
        self.inventory = Inventory(self._transport, self.operations)
        self.fleet = Fleet(self._transport, self.operations)
        self.replays = Replays(self._transport, self.operations)
        self.plans = Plans(self._transport)
        self.events = Events(self._transport)
        self.subscriptions = Subscriptions(self._transport)
        self.audit = Audit(self._transport)
        self.dry_run = DryRun(self._transport)
        """The same rooms: calls change nothing and give back what would come of them."""

    @classmethod
    def to(cls, target: Target, *, settings: ClientSettings | None = None) -> Client:
        """A client for what a context says. Raises ContextError if its token can't be read."""
        return cls(target.url, target.read_token(), ca_file=target.ca_file, settings=settings)

    @classmethod
    def from_environment(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        settings: ClientSettings | None = None,
    ) -> Client:
        """As the command line would: the current context, or VIREO_CONTEXT, VIREO_URL, VIREO_TOKEN."""
        return cls.to(chosen(os.environ if environ is None else environ), settings=settings)

    @property
    def url(self) -> str:
        return self._transport.url

    async def close(self) -> None:
        await self._transport.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
