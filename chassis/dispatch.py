"""From a message's bytes to the handler of its type, by an explicit table, inside a span.

What belongs here: CloudEvents in, a handler called. Whether the message is tried again is decided by
what is raised (`chassis.service`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec import Struct

from chassis.bus import Incoming
from chassis.service import Reject
from chassis.tracing import span
from schemas.envelope import Envelope
from schemas.subjects import BY_MESSAGE
from schemas.wire import Undecodable, unwrap

Handler = Callable[[Envelope[Any], Incoming], Awaitable[None]]


def by_type(table: Mapping[type[Struct], Handler]) -> Callable[[Incoming], Awaitable[None]]:
    """A consumer's handler that decodes the envelope and calls the handler of its data's type.

    What is no message of the catalogue, or none of the table, is rejected with the reason.
    """
    handlers = {BY_MESSAGE[message].type: handler for message, handler in table.items()}

    async def handle(message: Incoming) -> None:
        try:
            envelope = unwrap(message.data)
        except Undecodable as error:
            raise Reject(str(error)) from error
        handler = handlers.get(envelope.type)
        if handler is None:
            raise Reject(f"{envelope.type} is not handled here")
        with span(
            envelope.type,
            kind="consumer",
            traceparent=envelope.traceparent,
            attributes=_attributes(envelope, message),
        ):
            await handler(envelope, message)

    return handle


def _attributes(envelope: Envelope[Any], message: Incoming) -> dict[str, str | int]:
    """OpenTelemetry's messaging conventions, and which operation this belongs to."""
    attributes: dict[str, str | int] = {
        "messaging.system": "nats",
        "messaging.destination.name": message.subject,
        "messaging.message.id": envelope.id,
        "vireo.stream": message.stream,
        "vireo.sequence": message.sequence,
        "vireo.delivered": message.delivered,
    }
    if envelope.operation is not None:
        attributes["vireo.operation"] = envelope.operation
    return attributes
