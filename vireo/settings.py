"""The limits of the SDK, each with a name and a unit. What a context holds is in `vireo.contexts`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Seconds = Annotated[float, Meta(gt=0)]


class ClientSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    attempts: Annotated[int, Meta(ge=1)] = 5
    """How often one request is sent before the client gives up."""
    backoff_first_s: Seconds = 0.2
    """The pause after the first attempt; it doubles from there."""
    backoff_most_s: Seconds = 3.0
    """No pause is longer, whatever the server's Retry-After says."""
    connect_timeout_s: Seconds = 5.0
    request_timeout_s: Seconds = 30.0
    """How long an answer may take, beyond what the request itself asks to wait."""
    question_s: Seconds = 60.0
    """How much longer an answer may take that must be worked out, as that to a question for capacity."""
    patience_s: Seconds = 30.0
    """How long a wait or an event stream outlives a server that doesn't answer at all."""
    wait_slice_s: Annotated[float, Meta(gt=0, le=300)] = 30.0
    """How long one request of a wait may hang at the server."""
    poll_first_s: Seconds = 0.1
    """Steps of an operation are looked for this often at first, …"""
    poll_most_s: Seconds = 1.0
    """… and this often once nothing has happened for a while."""
    event_silence_s: Seconds = 45.0
    """An event stream that doesn't even send a comment for so long is opened again."""
    event_bytes: Annotated[int, Meta(ge=1024)] = 4 * 1024 * 1024
    """The longest event that is read."""
    page_size: Annotated[int, Meta(ge=1, le=1000)] = 200
