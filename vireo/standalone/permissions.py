"""Who may say and hear what on the bus: one user per service, each with the least that it needs. Pure.

`nats-server` takes these as the permissions of its users. An agent may speak under its own name only and
makes no consumers; nobody but the operator can delete a stream.
"""

from __future__ import annotations

from msgspec import Struct

from schemas import subjects
from schemas.definitions import KINDS
from schemas.subjects import STREAMS


class Permissions(Struct, frozen=True, kw_only=True):
    """Subjects (wildcards allowed) that a user may publish to and subscribe to."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


OPERATOR = Permissions(publish=(">",), subscribe=(">",))
"""For people with natscli."""


def of_service(service: str, *, user: str) -> Permissions:
    """Permissions of one of the site's services; `user` names its inbox."""
    publish, subscribe = _SERVICES[service]
    return Permissions(
        publish=(*_CHASSIS_PUBLISH, f"vireo.evt.*.{service}.>", *publish),
        subscribe=(*_answering(service, user), f"vireo.svc.{service}.>", *subscribe),
    )


def of_agent(*, site: str, host: str, user: str) -> Permissions:
    """Permissions of one host's agent."""
    fleet, actions = subjects.fleet_consumer(host), subjects.actions_consumer(host)
    consumers = ((_stream(subjects.KV_FLEET), fleet), (subjects.ACTIONS, actions))
    return Permissions(
        publish=(
            f"vireo.evt.{site}.{host}.>",
            subjects.telemetry(site=site, host=host),
            f"$KV.{subjects.KV_LEASES}.{host}",
            *(
                subject
                for stream, consumer in consumers
                for subject in (
                    f"$JS.API.CONSUMER.INFO.{stream}.{consumer}",
                    f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}",
                    f"$JS.ACK.{stream}.{consumer}.>",
                    subjects.dead_letter(stream=stream, consumer=consumer),
                )
            ),
        ),
        subscribe=(
            *_answering("hostagent", user),
            subjects.host_rpc(">", site=site, host=host),
        ),
    )


def inbox_prefix(user: str) -> str:
    return f"_INBOX_{user}"


def _answering(service: str, user: str) -> tuple[str, ...]:
    """What every micro service listens to beside its endpoints: its inbox, and discovery of all or of
    its kind (ADR-32)."""
    discovery = ("$SRV.*", f"$SRV.*.{service}", f"$SRV.*.{service}.*")
    return (f"{inbox_prefix(user)}.>", *discovery)


def _stream(bucket: str) -> str:
    return f"KV_{bucket}"


_ALL_STREAMS = tuple(_stream(s.name) if s.bucket else s.name for s in STREAMS)

# Only the catalogue's streams, and never $JS.API.STREAM.DELETE.
_CHASSIS_PUBLISH = (
    *(
        subject
        for stream in _ALL_STREAMS
        for subject in (
            f"$JS.API.STREAM.INFO.{stream}",
            f"$JS.API.STREAM.CREATE.{stream}",
            f"$JS.API.STREAM.UPDATE.{stream}",
            f"$JS.API.STREAM.MSG.GET.{stream}",
            f"$JS.API.DIRECT.GET.{stream}",
            f"$JS.API.DIRECT.GET.{stream}.>",
            f"$JS.API.CONSUMER.CREATE.{stream}.>",
            f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.>",
            f"$JS.API.CONSUMER.INFO.{stream}.>",
            f"$JS.API.CONSUMER.DELETE.{stream}.>",
            f"$JS.API.CONSUMER.MSG.NEXT.{stream}.>",
            f"$JS.ACK.{stream}.>",
        )
    ),
    "$JS.FC.>",
    "vireo.dlq.>",
)

_SERVICES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "gateway": (
        (
            "vireo.cmd.>",
            "vireo.svc.>",
            "vireo.rpc.>",
            f"$KV.{subjects.KV_CONFIG}.token.*",
            f"$KV.{subjects.KV_IDEMPOTENCY}.>",
            f"$JS.API.CONSUMER.LIST.{subjects.EVENTS}",
        ),
        (),
    ),
    "scheduler": (
        (
            "vireo.act.>",
            "vireo.svc.>",
            f"$KV.{subjects.KV_FLEET}.>",
            f"$JS.API.STREAM.PURGE.{_stream(subjects.KV_FLEET)}",
            *(f"$JS.API.CONSUMER.UNPIN.{s}.>" for s in (subjects.COMMANDS, subjects.EVENTS)),
        ),
        (subjects.ALL_TELEMETRY,),
    ),
    "inventory": (
        (
            "vireo.svc.>",
            *(f"$KV.{subjects.KV_CONFIG}.{subjects.definition_key(kind, '*')}" for kind in KINDS),
            "vireo.cmd.*.fleet.restore",
            "vireo.replay.>",
        ),
        (),
    ),
    "metrics": (
        (
            "vireo.svc.>",
            f"$KV.{subjects.KV_CONFIG}.{subjects.alerts_key('*')}",
            *(f"$JS.API.CONSUMER.LIST.{s}" for s in (subjects.COMMANDS, subjects.EVENTS)),
        ),
        (subjects.ALL_TELEMETRY,),
    ),
}
