"""The only place that spells a subject: builders, streams, and the CATALOG of what goes where.

CATALOG answers, per message type: which CloudEvents type, which subject, which stream, who owns it.
The streams themselves (`STREAMS`) are created from here by the chassis.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from schemas import actions, commands, events, restores
from schemas.ids import is_name, is_uuid7

KV_FLEET = "FLEET"
KV_CONFIG = "CONFIG"
KV_LEASES = "LEASES"
KV_IDEMPOTENCY = "IDEMPOTENCY"

COMMANDS = "COMMANDS"
ACTIONS = "ACTIONS"
EVENTS = "EVENTS"
ADVISORIES = "ADVISORIES"
REPLAYS = "REPLAYS"
DEADLETTERS = "DEADLETTERS"

DAY_S = 86_400.0
MIB = 1 << 20

Owner = Literal["gateway", "scheduler", "hostagent", "inventory", "metrics"]


class Stream(Struct, frozen=True, kw_only=True):
    """A stream or bucket as the catalogue wants it. A bucket has `bucket` set and no subjects."""

    name: str
    description: str
    subjects: tuple[str, ...] = ()
    bucket: bool = False
    history: int = 1
    retention: Literal["limits", "workqueue"] = "limits"
    storage: Literal["file", "memory"] = "file"
    max_age_s: float = 0
    max_bytes: int = -1
    max_msg_size: int = 1 * MIB
    duplicate_window_s: float = 120
    atomic: bool = False
    message_ttl: bool = False
    full: Literal["refuse_new", "drop_old"] = "refuse_new"


STREAMS: tuple[Stream, ...] = (
    Stream(
        name=COMMANDS,
        description="Wishes on their way to whoever owns the thing; gone once handled",
        subjects=("vireo.cmd.>",),
        retention="workqueue",
        max_bytes=1024 * MIB,
        duplicate_window_s=600,
        atomic=True,
    ),
    Stream(
        name=ACTIONS,
        description="Things for one host to do once, each with a deadline",
        subjects=("vireo.act.>",),
        max_age_s=DAY_S,
        max_bytes=256 * MIB,
        duplicate_window_s=600,
        atomic=True,
        message_ttl=True,
    ),
    Stream(
        name=EVENTS,
        description="What happened; Postgres keeps it for ever",
        subjects=("vireo.evt.>",),
        max_age_s=7 * DAY_S,
        max_bytes=16_384 * MIB,
        duplicate_window_s=600,
        atomic=True,
        full="drop_old",
    ),
    Stream(
        name=DEADLETTERS,
        description="What could not be handled, with the reason",
        subjects=("vireo.dlq.>",),
        max_age_s=30 * DAY_S,
        max_bytes=1024 * MIB,
        max_msg_size=2 * MIB,
        full="drop_old",
    ),
    Stream(
        name=ADVISORIES,
        description="JetStream's own advisories: deliveries given up or terminated",
        subjects=(
            "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>",
            "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>",
        ),
        max_age_s=30 * DAY_S,
        max_bytes=256 * MIB,
        full="drop_old",
    ),
    Stream(
        name=REPLAYS,
        description="Recorded events, published again for programs to try themselves on",
        subjects=("vireo.replay.>",),
        max_age_s=DAY_S,
        max_bytes=1024 * MIB,
        duplicate_window_s=600,
        atomic=True,
        full="drop_old",
    ),
    Stream(
        name=KV_FLEET,
        description="Assignments: the desired state of every VM and host",
        bucket=True,
        atomic=True,
        message_ttl=True,
    ),
    Stream(
        name=KV_CONFIG,
        description="What people define and services watch: tokens, policies, templates, projects, rules",
        bucket=True,
        history=20,
    ),
    Stream(
        name=KV_LEASES,
        description="Proof that hosts live",
        bucket=True,
        storage="memory",
        message_ttl=True,
    ),
    Stream(
        name=KV_IDEMPOTENCY,
        description="Answers given under an Idempotency-Key, for a day",
        bucket=True,
        max_age_s=DAY_S,
        atomic=True,
    ),
)


class Channel(Struct, frozen=True, kw_only=True):
    """One message type of the catalogue."""

    message: type[Any]
    type: str
    """The CloudEvents type."""
    subject: str
    """With `{site}`, `{source}`, `{host}`, `{id}` where those stand."""
    stream: str
    owner: Owner
    """Who sends it (events) or handles it (commands, actions)."""

    @property
    def name(self) -> str:
        """`vm.create`, `vm.started`: kind and verb, without version."""
        return self.type.removeprefix("vireo.").rsplit(".", 1)[0]


def _command(message: type[Any], kind: str, verb: str, owner: Owner) -> Channel:
    return Channel(
        message=message,
        type=f"vireo.{kind}.{verb}.v1",
        subject=f"vireo.cmd.{{site}}.{kind}.{verb}",
        stream=COMMANDS,
        owner=owner,
    )


def _action(message: type[Any], kind: str, verb: str) -> Channel:
    return Channel(
        message=message,
        type=f"vireo.{kind}.{verb}.v1",
        subject=f"vireo.act.{{site}}.{{host}}.{kind}.{verb}",
        stream=ACTIONS,
        owner="hostagent",
    )


def _event(message: type[Any], kind: str, event: str, owner: Owner) -> Channel:
    return Channel(
        message=message,
        type=f"vireo.{kind}.{event}.v1",
        subject=f"vireo.evt.{{site}}.{{source}}.{kind}.{{id}}.{event}",
        stream=EVENTS,
        owner=owner,
    )


CATALOG: tuple[Channel, ...] = (
    _command(commands.CreateVm, "vm", "create", "scheduler"),
    _command(commands.CreateVms, "vm", "create_many", "scheduler"),
    _command(commands.StartVm, "vm", "start", "scheduler"),
    _command(commands.StopVm, "vm", "stop", "scheduler"),
    _command(commands.RebootVm, "vm", "reboot", "scheduler"),
    _command(commands.PauseVm, "vm", "pause", "scheduler"),
    _command(commands.ResumeVm, "vm", "resume", "scheduler"),
    _command(commands.DeleteVm, "vm", "delete", "scheduler"),
    _command(commands.ConfigureHost, "host", "configure", "scheduler"),
    _command(commands.ApplyPolicy, "policy", "apply", "inventory"),
    _command(commands.RemovePolicy, "policy", "remove", "inventory"),
    _command(commands.ApplyTemplate, "template", "apply", "inventory"),
    _command(commands.RemoveTemplate, "template", "remove", "inventory"),
    _command(commands.ApplyProject, "project", "apply", "inventory"),
    _command(commands.RemoveProject, "project", "remove", "inventory"),
    _command(commands.ApplyRule, "rule", "apply", "inventory"),
    _command(commands.RemoveRule, "rule", "remove", "inventory"),
    _command(commands.RebuildInventory, "inventory", "rebuild", "inventory"),
    _command(commands.RebuildFleet, "fleet", "rebuild", "inventory"),
    _command(restores.RestoreFleet, "fleet", "restore", "scheduler"),
    _command(commands.SilenceAlert, "alert", "silence", "metrics"),
    _command(commands.UnsilenceAlert, "alert", "unsilence", "metrics"),
    _command(commands.ReplayEvents, "replay", "start", "inventory"),
    _command(commands.StopReplay, "replay", "stop", "inventory"),
    _action(actions.RebootVmOnce, "vm", "reboot_once"),
    _event(events.OperationAccepted, "operation", "accepted", "gateway"),
    _event(events.OperationProgressed, "operation", "progressed", "hostagent"),
    _event(events.OperationSucceeded, "operation", "succeeded", "hostagent"),
    _event(events.OperationFailed, "operation", "failed", "scheduler"),
    _event(events.VmScheduled, "vm", "scheduled", "scheduler"),
    _event(events.VmReassigned, "vm", "reassigned", "scheduler"),
    _event(events.VmDefined, "vm", "defined", "hostagent"),
    _event(events.VmStarted, "vm", "started", "hostagent"),
    _event(events.VmStopped, "vm", "stopped", "hostagent"),
    _event(events.VmCrashed, "vm", "crashed", "hostagent"),
    _event(events.VmPaused, "vm", "paused", "hostagent"),
    _event(events.VmResumed, "vm", "resumed", "hostagent"),
    _event(events.VmRebooted, "vm", "rebooted", "hostagent"),
    _event(events.VmDeleted, "vm", "deleted", "hostagent"),
    _event(events.VmDrifted, "vm", "drifted", "hostagent"),
    _event(events.VmFailed, "vm", "failed", "hostagent"),
    _event(events.VmGuestChanged, "vm", "guest_changed", "hostagent"),
    _event(events.HostRegistered, "host", "registered", "hostagent"),
    _event(events.HostConfigured, "host", "configured", "scheduler"),
    _event(events.HostSilent, "host", "silent", "scheduler"),
    _event(events.HostReturned, "host", "returned", "scheduler"),
    _event(events.PolicyApplied, "policy", "applied", "inventory"),
    _event(events.PolicyRemoved, "policy", "removed", "inventory"),
    _event(events.TemplateApplied, "template", "applied", "inventory"),
    _event(events.TemplateRemoved, "template", "removed", "inventory"),
    _event(events.ProjectApplied, "project", "applied", "inventory"),
    _event(events.ProjectRemoved, "project", "removed", "inventory"),
    _event(events.RuleApplied, "rule", "applied", "inventory"),
    _event(events.RuleRemoved, "rule", "removed", "inventory"),
    _event(events.LedgerSealed, "ledger", "sealed", "inventory"),
    _event(events.LedgerGapFound, "ledger", "gap_found", "inventory"),
    _event(events.LedgerGapSettled, "ledger", "gap_settled", "inventory"),
    _event(events.LedgerArchived, "ledger", "archived", "inventory"),
    _event(events.InventoryRebuilt, "inventory", "rebuilt", "inventory"),
    _event(events.FleetRestored, "fleet", "restored", "scheduler"),
    _event(events.ReplayEnded, "replay", "ended", "inventory"),
    _event(events.AlertFired, "alert", "fired", "metrics"),
    _event(events.AlertResolved, "alert", "resolved", "metrics"),
    _event(events.AlertSilenced, "alert", "silenced", "metrics"),
    _event(events.AlertUnsilenced, "alert", "unsilenced", "metrics"),
)

BY_MESSAGE: dict[type[Any], Channel] = {channel.message: channel for channel in CATALOG}
BY_TYPE: dict[str, Channel] = {channel.type: channel for channel in CATALOG}


def command(message: type[Any], *, site: str) -> str:
    """The subject of a command."""
    return BY_MESSAGE[message].subject.format(site=_name(site))


def action(message: type[Any], *, site: str, host: str) -> str:
    """The subject of an action for a host."""
    return BY_MESSAGE[message].subject.format(site=_name(site), host=_name(host))


def event(message: type[Any], *, site: str, source: str, id: str) -> str:
    """The subject of an event: `source` is a host or a service, `id` what the event is about."""
    return BY_MESSAGE[message].subject.format(site=_name(site), source=_name(source), id=_id(id))


def every_command(kind: str, *, site: str) -> str:
    """Every command about one kind of thing (a pattern)."""
    return f"vireo.cmd.{_name(site)}.{_name(kind)}.>"


def every_event(message: type[Any], *, site: str) -> str:
    """Every event of one type, whoever says it and whatever it is about (a pattern)."""
    return BY_MESSAGE[message].subject.format(site=_name(site), source="*", id="*")


def events_about(kind: str, id: str, *, site: str, source: str | None = None) -> str:
    """Every event about one thing, by one source or by whomever (a pattern)."""
    return f"vireo.evt.{_name(site)}.{_name(source) if source else '*'}.{_name(kind)}.{_id(id)}.*"


def parts_of_event(subject: str) -> tuple[str, str, str, str]:
    """Source, kind, id and event that an event's subject names."""
    _, _, _, source, kind, id, event = subject.split(".")
    return source, kind, id, event


def event_pattern(
    *, site: str = "*", source: str = "*", kind: str = "*", id: str = "*", event: str = "*"
) -> str:
    """The events of a kind, by whomever and about whatever unless it is given (a pattern)."""
    where, by = (text if text == "*" else _name(text) for text in (site, source))
    return f"vireo.evt.{where}.{by}.{kind}.{id if id == '*' else _id(id)}.{event}"


def replayed(name: str, *, site: str, source: str, kind: str, id: str, event: str) -> str:
    """The subject of a recorded event that is published again: never one that anything live listens to."""
    about = id.lower() if is_name(id.lower()) or is_uuid7(id) else "-"
    return f"vireo.replay.{_name(name)}.{_name(site)}.{_name(source)}.{kind}.{about}.{event}"


def telemetry(*, site: str, host: str) -> str:
    return f"vireo.tel.{_name(site)}.{_name(host)}"


ALL_TELEMETRY = "vireo.tel.*.*"
ALL_EVENTS = "vireo.evt.>"


def site_telemetry(*, site: str) -> str:
    return f"vireo.tel.{_name(site)}.*"


def service(name: str, endpoint: str) -> str:
    """The subject of a micro endpoint."""
    return f"vireo.svc.{_name(name)}.{endpoint}"


def host_rpc(endpoint: str, *, site: str, host: str) -> str:
    """The subject of an endpoint of one host's agent; `>` as endpoint means: of every one."""
    return f"vireo.rpc.{_name(site)}.{_name(host)}.{endpoint}"


def of_site(endpoint: str, *, site: str) -> str:
    """The endpoint of a service that every site has its own of: asked of the right one."""
    return f"{endpoint}.{_name(site)}"


def dead_letter(*, stream: str, consumer: str) -> str:
    return f"vireo.dlq.{stream}.{consumer}"


def vm_key(*, vm: str, host: str) -> str:
    """FLEET key of a VM's assignment; `*` as host means: on whichever host."""
    return f"vm.{_id(vm)}.{host if host == '*' else _name(host)}"


def host_facts_key(host: str) -> str:
    return f"host.facts.{_name(host)}"


def host_config_key(host: str) -> str:
    return f"host.config.{_name(host)}"


def term_key(site: str) -> str:
    """FLEET key of the term of the scheduler that places the site's VMs now."""
    return f"term.{_name(site)}"


def definition_key(kind: str, name: str) -> str:
    """CONFIG key of a policy, template, project or alert rule; `*` as name: of every one (a pattern)."""
    return f"{_name(kind)}.{name if name == '*' else _name(name)}"


def alerts_key(site: str) -> str:
    """CONFIG key of what the metrics service knows of the site's alerts."""
    return f"alerts.{site if site == '*' else _name(site)}"


def host_keys(host: str) -> str:
    """Every FLEET key that concerns a host (a pattern)."""
    return f"*.*.{_name(host)}"


def fleet_consumer(host: str) -> str:
    """The durable consumer by which a host reads its part of FLEET."""
    return f"FLEET_{_name(host)}"


def actions_consumer(host: str) -> str:
    return f"ACTIONS_{_name(host)}"


def host_actions(*, site: str, host: str) -> str:
    """Every action for a host (a pattern)."""
    return f"vireo.act.{_name(site)}.{_name(host)}.>"


def inbox_prefix(host: str) -> str:
    """The inbox prefix that an agent uses, so that permissions can name it."""
    return f"_INBOX_{_name(host)}"


def _name(text: str) -> str:
    if not is_name(text):
        raise ValueError(f"not a name: {text!r} (lower-case letters, digits, hyphens; at most 63)")
    return text


def _id(text: str) -> str:
    if not (is_uuid7(text) or is_name(text)):
        raise ValueError(f"neither an id nor a name: {text!r}")
    return text
