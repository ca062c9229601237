"""The gateway's values: tokens, callers, what is kept under an idempotency key, and its states.

Pure. What is decided about them stands in `decide`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from schemas.alerts import SilenceSeconds, Text
from schemas.commands import MOST_COPIES, GraceSeconds
from schemas.envelope import Envelope
from schemas.events import OperationAccepted
from schemas.forecasts import MOST_HOSTS, MoreHosts
from schemas.ids import HostName, LabelKey, Labels, MessageId, Name, OperationId, SiteName, VmId
from schemas.policies import Policy
from schemas.problems import Problem
from schemas.queries import Cursor, EventName, Moment, PageSize
from schemas.requests import VmRequest
from schemas.resources import HostTuning, Operation, StopMode
from schemas.rules import Taint

TOKEN_PREFIX = "vireo_"  # noqa: S105  what a token starts with, not one
TOKEN_KEYS = "token.*"  # noqa: S105
ADMIN = "admin"

WaitFor = Annotated[str, Meta(max_length=20)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


# tokens


class TokenRecord(Struct, frozen=True, kw_only=True):
    """CONFIG key `token.<name>`: what is kept of a token; the token itself never is."""

    name: Name
    hash: Sha256
    """SHA-256 of the whole token."""
    created_at: datetime
    role: Literal["admin"]


class Caller(Struct, frozen=True, kw_only=True):
    """Who asks, once the token was found good."""

    token: str
    role: str

    @property
    def actor(self) -> str:
        return f"token/{self.token}"


# requests, in the form that HTTP gives them


class BatchRequest(Struct, frozen=True, kw_only=True):
    """Body of `/v1/vms/batch`: several VMs of one spec, by `count` or by `names`."""

    spec: VmRequest
    count: Annotated[int, Meta(ge=1, le=MOST_COPIES)] | None = None
    pattern: Annotated[str, Meta(min_length=1, max_length=80)] | None = None
    """How those counted are named, `{n}` being the number from 1; `<name of the spec>-{n}` if left out."""
    names: Annotated[tuple[Name, ...], Meta(max_length=MOST_COPIES)] = ()
    gang: bool = False
    """All or none: where one cannot be placed, none is made."""


class StopRequest(Struct, frozen=True, kw_only=True):
    """Body of `/v1/vms/{vm}/stop`."""

    mode: StopMode = "graceful"
    grace_s: GraceSeconds = 60


class RebootRequest(Struct, frozen=True, kw_only=True):
    """Body of `/v1/vms/{vm}/reboot`."""

    mode: StopMode = "graceful"


class WishQuery(Struct, frozen=True, kw_only=True):
    """Query of every request that begins an operation."""

    wait: WaitFor | None = None
    """Answer when the operation has ended, or after so long: `30s`, `500ms`, `2m`."""
    dry_run: bool = False
    """Do nothing: answer what would come of it, a `Forecast`."""


class PageQuery(Struct, frozen=True, kw_only=True):
    """Query of a list that has no filters."""

    limit: PageSize = 50
    after: Cursor | None = None


class VersionQuery(Struct, frozen=True, kw_only=True):
    """Query of `/v1/policies/{name}`, and of templates and projects."""

    version: Annotated[int, Meta(ge=1)] | None = None
    """This one, not the one that counts now."""


class DeleteRequest(Struct, frozen=True, kw_only=True):
    """Query of `DELETE /v1/vms/{vm}`."""

    mode: StopMode = "forced"
    grace_s: GraceSeconds = 60
    wait: WaitFor | None = None
    dry_run: bool = False
    """Both as in `WishQuery`."""


class HostChange(Struct, frozen=True, kw_only=True):
    """Body of `PATCH /v1/hosts/{host}`: what is left out stays; `labels`, `taints` and `tuning` each
    replace all that was set of them."""

    generation: Annotated[int, Meta(ge=0)] | None = None
    """Of the host's `config` that this was made from: a conflict if it has been changed since."""
    maintenance: bool | None = None
    labels: Annotated[Labels, Meta(max_length=64)] | None = None
    taints: Annotated[tuple[Taint, ...], Meta(max_length=16)] | None = None
    tuning: HostTuning | None = None


class RebuildRequest(Struct, frozen=True, kw_only=True):
    """Body of `/v1/inventory/rebuild`."""

    compare_only: bool = False
    """Change nothing: only find out whether the tables are what follows from the events."""


class SilenceRequest(Struct, frozen=True, kw_only=True):
    """Body of `/v1/alerts/silences`."""

    rule: Name
    for_s: SilenceSeconds
    """For how long."""
    reason: Text = ""


class PastQuery(Struct, frozen=True, kw_only=True):
    """Query of one thing."""

    at: Moment | None = None
    """As it was then."""


class ReviewQuery(Struct, frozen=True, kw_only=True):
    """Query of `/v1/vms/{vm}/placement`."""

    now: bool = False
    """Also, how it would be decided now, the VM itself not counted."""
    at: Moment | None = None
    """The VM as it was then."""


class TrialRequest(Struct, frozen=True, kw_only=True):
    """Body of `/v1/policies/{name}/try`: a VM, and a draft of the policy in place of what counts now."""

    spec: VmRequest
    """Its name does not matter."""
    draft: Policy | None = None


class CapacityRequest(Struct, frozen=True, kw_only=True):
    """Body of `/v1/capacity`: how many more copies of a VM fit, and what if there were other hosts."""

    spec: VmRequest | None = None
    """Its name does not matter. Left out: only whether the VMs of hosts taken away fit elsewhere."""
    by: LabelKey | None = None
    """Count by the values of this label of hosts, too."""
    without: Annotated[tuple[HostName, ...], Meta(max_length=MOST_HOSTS)] = ()
    """As if there were no such hosts; their VMs move elsewhere first, as far as they fit."""
    add: Annotated[tuple[MoreHosts, ...], Meta(max_length=16)] = ()
    """As if there were these, too."""


class Nothing(Struct, frozen=True):
    """A body or query with nothing in it."""


class OperationQuery(Struct, frozen=True, kw_only=True):
    """Query of `/v1/operations/{operation}`."""

    wait: WaitFor | None = None
    """Wait so long for its end: `30s`, `500ms`, `2m`."""
    at: Moment | None = None
    """As it was then."""


class EventQuery(Struct, frozen=True, kw_only=True):
    """Query of `/v1/events`: which events, of all that there are. As a stream, `after` is the
    sequence to go on after; as a list, the cursor of the page before."""

    operation: OperationId | None = None
    vm: Name | None = None
    """Id or name."""
    host: HostName | None = None
    site: SiteName | None = None
    actor: Annotated[str, Meta(max_length=200)] | None = None
    type: Annotated[tuple[EventName, ...], Meta(max_length=20)] = ()
    after: Cursor | None = None
    since: datetime | None = None
    """Stored then or later. Lists only, like all that follows."""
    until: datetime | None = None
    """Stored before."""
    newest: bool = False
    """The newest first."""
    limit: PageSize | None = None


class SubscriptionRequest(Struct, frozen=True, kw_only=True):
    """Body of `PUT /v1/subscriptions/{name}`: a `Subscription` but for its name."""

    types: Annotated[tuple[EventName, ...], Meta(max_length=20)] = ()
    vm: VmId | None = None
    """Events of this VM's own: `vm.…`."""
    host: HostName | None = None
    """What this host's agent says."""
    site: SiteName | None = None
    begin: Literal["now", "start"] = "now"
    """With what comes, or with all that the stream still has. Only where the name is new."""
    lease_s: Annotated[float, Meta(ge=1, le=3600)] = 30
    """An event that is not settled for so long is handed out again."""


class ReplayRequest(Struct, frozen=True, kw_only=True):
    """Body of `/v1/replays`. All that is given must hold, one of `types`."""

    name: Name
    """They are published under `vireo.replay.<name>.…`."""
    since: datetime
    """What was stored then or later,"""
    until: datetime
    """and before this."""
    speed: Annotated[float, Meta(ge=0, le=1_000_000)] = 1.0
    """How many times as fast as it was; 0 is as fast as it goes."""
    vm: Name | None = None
    """Id or name."""
    host: HostName | None = None
    operation: OperationId | None = None
    types: Annotated[tuple[EventName, ...], Meta(max_length=20)] = ()


class Wish(Struct, frozen=True, kw_only=True):
    """A valid mutating request before it has an id: what is asked, told from every other request.

    `fingerprint` is the same for two requests exactly when they ask for the same.
    """

    fingerprint: Sha256
    caller: Caller
    key: str | None = None
    """The client's Idempotency-Key."""


class Accepted(Struct, frozen=True, kw_only=True):
    """What a wish leads to: the command, the event that says so, and the answer to the client."""

    command: Envelope[Any]
    event: Envelope[OperationAccepted]
    answer: Operation
    members: tuple[Envelope[OperationAccepted], ...] = ()
    """The events of the operations of its VMs, where the command makes several."""


# idempotency

IdempotencyState = Literal["in_flight", "interrupted", "done"]

NEXT_STATES: dict[IdempotencyState, frozenset[IdempotencyState]] = {
    "in_flight": frozenset({"in_flight", "interrupted", "done"}),
    "interrupted": frozenset({"in_flight"}),
    "done": frozenset(),
}
"""in_flight → in_flight is the takeover."""


class IdempotencyRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """IDEMPOTENCY key SHA-256 of token and key: one request's life, for a day."""

    fingerprint: Sha256
    command: MessageId
    target: str
    """Id of the VM or name of the host, resolved when the key was claimed first."""
    state: IdempotencyState
    since: datetime
    """When the request that works on it claimed it."""
    answer: str = ""
    """The body that was answered; empty until it is done."""


class Claim(Struct, frozen=True, kw_only=True):
    """Go on, under this command id. `revision` is the record's that is replaced, 0 for none.

    `target` is set where an earlier try had resolved it.
    """

    command: str
    revision: int
    target: str | None = None


class Replay(Struct, frozen=True, kw_only=True):
    """The same was asked before and answered: answer the same."""

    operation: str
    answer: bytes


class Refusal(Struct, frozen=True, kw_only=True):
    """Don't: the problem says why, and `retry_after_s` when it may be otherwise."""

    problem: Problem
    retry_after_s: int | None = None


class EventFilter(Struct, frozen=True, kw_only=True):
    """Which events a stream sends; all of what is given must hold, one of `types`."""

    operation: OperationId | None = None
    vm: VmId | None = None
    host: HostName | None = None
    site: SiteName | None = None
    actor: str | None = None
    types: tuple[EventName, ...] = ()


class Identity(Struct, frozen=True):
    """As much of a VM or an operation as is needed to know which it is."""

    id: VmId | OperationId


IdempotencyDecision = Claim | Replay | Refusal
