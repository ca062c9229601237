"""One sample of every message and resource, made of fixed values.

They are the wire format's witnesses: their bytes are checked in (`schemas/generated/samples`), a test
compares them, and documents take their examples from here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct

from schemas import (
    actions,
    alerts,
    assignments,
    audit,
    commands,
    events,
    forecasts,
    loads,
    metrics,
    plans,
    resources,
    restores,
    rules,
    telemetry,
)
from schemas.alerts import AlertRule
from schemas.causes import Effect, EffectTree
from schemas.changes import Changed, ChangedBy, FieldChange
from schemas.definitions import KINDS, Amounts, Definition, Project, ProjectUse, Quota, Template
from schemas.envelope import Envelope
from schemas.ids import derived_id, time_of
from schemas.ledger import Fault
from schemas.policies import Policy
from schemas.problems import FieldError, Problem
from schemas.proofs import Place, ProvenEvent, proven_event
from schemas.rebuilds import TableComparison
from schemas.requests import VmRequest
from schemas.seals import Anchor, Seal, SignedAnchor, SignedSeal, statement_of
from schemas.subjects import ACTIONS, BY_MESSAGE, COMMANDS, Channel
from schemas.subscriptions import TakenEvent, TakenEvents
from schemas.wire import encode, wrap

D = TypeVar("D", Policy, Template, Project, AlertRule)

SITE = "main"
HOST = "h1"
OPERATION = "01939f4c-8a00-7000-8000-000000000001"
VM = "01939f4c-8a00-7000-8000-000000000002"
ACTOR = "token/admin"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
AT = datetime(2024, 12, 7, 9, 30, tzinfo=UTC)

SPEC = resources.VmSpec(
    name="web-1",
    cpus=2,
    memory_mib=1024,
    disks=(resources.DiskSpec(image="debian-12", size_gib=10),),
    nics=(resources.NicSpec(network="default", mac="52:54:00:12:34:56"),),
    labels={"tier": "web"},
    metadata={"owner": "shop"},
    on=rules.HostRules(labels={"rack": "a"}),
)

REQUEST = VmRequest(
    name="web-2",
    template="web",
    memory_mib=2048,
    disks=(resources.DiskSpec(image="debian-12", size_gib=20),),
    project="shop",
    policy="quiet",
)

PLACEMENT = resources.Placement(
    host=HOST,
    policy="spread",
    considered=2,
    ranking=(
        resources.Scored(host=HOST, score=1.42, terms={"free_memory": 0.75, "free_cpu": 0.67}),
    ),
    excluded=(
        resources.Excluded(
            host="h2", rule="memory", detail="needs 1024 MiB, 512 MiB of 4096 MiB are free"
        ),
    ),
)

POLICY = Policy(
    name="quiet", version=3, weights={"free_cpu": 2.0, "energy": 1.0}, rules={"spread": "preferred"}
)

TEMPLATE = Template(
    name="web",
    version=1,
    cpus=2,
    memory_mib=1024,
    disks=(resources.DiskSpec(image="debian-12", size_gib=10),),
    labels={"tier": "web"},
    project="shop",
)

PROJECT = Project(
    name="shop",
    version=2,
    description="The shop and what it stands on",
    policy="quiet",
    quota=Quota(vms=20, cpus=64),
)


PROJECT_USE = ProjectUse(
    project=PROJECT.name,
    site=SITE,
    used=Amounts(vms=3, cpus=6, memory_mib=6144, disk_gib=60),
    quota=PROJECT.quota,
)


def kept(definition: D) -> Definition[D]:
    """A definition as the inventory shows it."""
    kind = next(kind for kind, of in KINDS.items() if of is type(definition))
    return Definition(
        kind=kind,
        name=definition.name,
        version=definition.version,
        definition=definition,
        actor=ACTOR,
        operation=OPERATION,
        at=AT,
    )


GUEST = resources.GuestFacts(
    hostname="web-1",
    os="Debian GNU/Linux 12 (bookworm)",
    kernel="6.1.0-41-cloud-amd64",
    agent_version="7.2.22",
    addresses=("192.168.122.17",),
)

FACTS = resources.HostFacts(
    host=HOST,
    site=SITE,
    hypervisor="QEMU",
    domain_type="kvm",
    arch="x86_64",
    cpus=16,
    memory_mib=65536,
    disk_gib=900,
    numa=(resources.NumaNode(id=0, cpus=16, memory_mib=65536),),
    cpu_model="EPYC-Rome",
    libvirt_version="9.0.0",
    hypervisor_version="7.2.22",
    agent_version="0.1.0",
    kernel="6.1.0-41-amd64",
    networks=("default",),
    vsock=True,
    images=(resources.HostImage(name="debian-12", size_gib=2),),
    foreign=(
        resources.ForeignDomain(
            name="legacy",
            uuid="3f0b6f0e-6a0f-4bb0-8f3e-6a1b1a4b7c11",
            state="running",
            cpus=2,
            memory_mib=2048,
        ),
    ),
    labels={"rack": "a"},
)

PROBLEM = Problem(
    type="urn:vireo:problem:unplaceable",
    title="No host can take the VM",
    status=409,
    detail="All 2 hosts are excluded.",
    reasons={"h1": "maintenance", "h2": "needs 1024 MiB, 512 MiB of 4096 MiB are free"},
)

INVALID = Problem(
    type="urn:vireo:problem:invalid-request",
    title="The request is not valid",
    status=400,
    detail="/cpus: expected int >= 1",
    request="01939f4c-8a00-7000-8000-00000000000f",
    errors=(FieldError(field="/cpus", detail="expected int >= 1"),),
)

GUEST_SAMPLE = telemetry.GuestSample(
    vm=VM,
    at=AT,
    source="guest-agent",
    os=GUEST.os,
    kernel=GUEST.kernel,
    hostname=GUEST.hostname,
    agent_version=GUEST.agent_version,
    load1=0.12,
    load5=0.08,
    load15=0.02,
    cpus_online=2,
    cpu_busy=0.07,
    memory_total_kib=1011712,
    memory_available_kib=821248,
    uptime_s=812.5,
    clock_offset_s=-0.021,
    users=("ada",),
    file_systems=(
        telemetry.FileSystem(
            mountpoint="/", type="ext4", total_bytes=10434699264, used_bytes=1210351616
        ),
    ),
    interfaces=(
        telemetry.NetworkInterface(
            name="eth0",
            mac="52:54:00:12:34:56",
            addresses=("192.168.122.17",),
            receive_bytes=88_120,
            transmit_bytes=40_312,
        ),
    ),
    disks=(telemetry.GuestDisk(name="vda", read_bytes=120_586_240, write_bytes=9_437_184),),
)

HOST_SAMPLE = telemetry.HostSample(
    cpu_busy=0.31,
    io_wait=0.02,
    power_watts=184.5,
    cpu_modes=telemetry.CpuModes(
        user=0.22, nice=0.0, system=0.07, irq=0.0, softirq=0.02, steal=0.0
    ),
    cpu_pressure=0.04,
    memory_pressure=0.0,
    io_pressure=0.01,
    load1=4.2,
    load5=3.9,
    load15=3.1,
    memory_total_mib=65536,
    memory_available_mib=40960,
    swap_total_mib=8192,
    swap_used_mib=0,
    disk_total_bytes=966367641600,
    disk_free_bytes=751619276800,
    pools=(telemetry.PoolSample(name="nvme", total_bytes=1920383410176, free_bytes=1610612736000),),
    interfaces=(
        telemetry.HostInterface(
            name="enp3s0",
            receive_bytes=88_120_433_210,
            receive_packets=91_204_118,
            receive_errors=0,
            receive_drops=12,
            transmit_bytes=40_312_118_905,
            transmit_packets=60_118_402,
            transmit_errors=0,
            transmit_drops=0,
        ),
    ),
    temperatures=(
        telemetry.Temperature(
            part="cpu",
            chip="coretemp",
            device="coretemp.0",
            sensor="Package id 0",
            celsius=54.0,
            critical_celsius=100.0,
        ),
    ),
    uptime_s=864000.0,
    vms_running=1,
)

ANCHOR = SignedAnchor(
    statement=statement_of(
        Anchor(
            stream="EVENTS",
            month="2024-11",
            first=1,
            last=4096,
            hash=32 * "0c",
            received_at=AT,
            file="events-2024-11.jsonl.gz",
            sha256=32 * "0e",
            put_away_at=AT,
        )
    ),
    signature=64 * "0d",
    key=32 * "0f",
)
SEAL = SignedSeal(
    statement=statement_of(
        Seal(
            stream="EVENTS",
            day="2024-12-06",
            first=1,
            last=4096,
            root=32 * "0b",
            hash=32 * "0c",
            final=True,
            sealed_at=AT,
        )
    ),
    signature=64 * "0d",
    key=32 * "0e",
)

EFFECTS = EffectTree(
    root=Effect(
        what="operation",
        id=OPERATION,
        name="vm.start",
        at=AT,
        elapsed_ms=0,
        about=f"vm/{VM}",
        phase="running",
        actor="token/admin",
        effects=(
            Effect(
                what="event",
                id=derived_id(OPERATION, "vm.reassigned"),
                name="vm.reassigned",
                source="scheduler",
                at=AT,
                elapsed_ms=3.5,
                about=f"vm/{VM}",
                detail="generation 2: running",
            ),
        ),
    ),
    operations=1,
    events=1,
    whole=True,
)
CHANGED = Changed(
    kind="vm",
    id=VM,
    name="web-1",
    change="changed",
    fields=(FieldChange(field="state", before="running", after="stopped"),),
    by=(ChangedBy(operation=OPERATION, command="vm.stop", actor=ACTOR, at=AT),),
)
LEDGER_STATE = audit.LedgerState(
    stream="EVENTS",
    rows=4117,
    hash=32 * "0a",
    received_at=AT,
    key=SEAL.key,
    sealed_through="2024-12-06",
    archives=(ANCHOR,),
)
LEDGER_GAP = audit.LedgerGap(
    epoch=0, first=4117, last=4120, state="missing", found_at=AT, settled_at=AT
)
LEDGER_PROOF = audit.LedgerProof(seal=SEAL, proof=(32 * "0f",))
LEDGER_CHECK = audit.LedgerCheck(
    through=4117,
    last=4117,
    rows=4117,
    faults=(Fault(what="missing", number=17, last=18),),
    ended=True,
)

_vm: dict[str, Any] = {"vm": VM, "host": HOST, "generation": 2}

ASSIGNMENT = assignments.VmAssignment(
    vm=VM,
    host=HOST,
    generation=1,
    spec=SPEC,
    power="running",
    operation=OPERATION,
    actor=ACTOR,
    placement=PLACEMENT,
    traceparent=TRACEPARENT,
)

ALERT = alerts.Alert(
    rule="host-silent",
    labels={"host": HOST, "site": SITE},
    severity="critical",
    phase="firing",
    since=AT,
    value=0.0,
    summary=f"Host {HOST} is silent",
    fired_at=AT,
)

ALERT_RULE = AlertRule(
    name="host-silent",
    version=2,
    metric="vireo_host_online",
    below=1,
    for_s=60,
    severity="critical",
    summary="Host {host} is silent",
)

RULE_TRIAL = alerts.RuleTrial(
    findings=(
        alerts.Finding(
            labels={"host": HOST, "site": SITE}, value=0, bad=True, summary=f"Host {HOST} is silent"
        ),
    ),
    measured=1,
    bad=1,
)

SILENCE = alerts.Silence(
    rule=ALERT.rule, until=AT, actor=ACTOR, reason="the disk is being replaced"
)

MESSAGES: tuple[Struct, ...] = (
    commands.CreateVm(vm=VM, spec=SPEC),
    commands.CreateVms(spec=SPEC, names=("web-1", "web-2"), gang=True),
    commands.StartVm(vm=VM),
    commands.StopVm(vm=VM, mode="graceful", grace_s=30),
    commands.RebootVm(vm=VM),
    commands.PauseVm(vm=VM),
    commands.ResumeVm(vm=VM),
    commands.DeleteVm(vm=VM),
    commands.ConfigureHost(host=HOST, maintenance=True, labels={"rack": "b"}),
    commands.ApplyPolicy(definition=POLICY),
    commands.RemovePolicy(name=POLICY.name),
    commands.ApplyTemplate(definition=TEMPLATE),
    commands.RemoveTemplate(name=TEMPLATE.name),
    commands.ApplyProject(definition=PROJECT),
    commands.RemoveProject(name=PROJECT.name),
    commands.ApplyRule(definition=ALERT_RULE),
    commands.RemoveRule(name=ALERT_RULE.name),
    commands.RebuildInventory(compare_only=True),
    commands.RebuildFleet(),
    commands.ReplayEvents(name="friday", since=AT, until=AT.replace(hour=10), speed=100),
    commands.StopReplay(name="friday"),
    commands.SilenceAlert(rule=ALERT.rule, for_s=7200, reason="the disk is being replaced"),
    commands.UnsilenceAlert(rule=ALERT.rule),
    restores.RestoreFleet(part=1, of=2, assignments=(ASSIGNMENT,), hosts=(FACTS,)),
    actions.RebootVmOnce(vm=VM, mode="graceful", deadline=AT.replace(minute=31)),
    events.OperationAccepted(command="vm.start", kind="vm", target=VM, request={"vm": VM}),
    events.OperationProgressed(step=2, of=4, detail="define the domain"),
    events.OperationSucceeded(detail="running"),
    events.OperationFailed(problem=PROBLEM),
    events.VmScheduled(vm=VM, host=HOST, generation=1, spec=SPEC, placement=PLACEMENT),
    events.VmReassigned(vm=VM, host=HOST, generation=2, power="stopped"),
    events.VmDefined(**_vm),
    events.VmStarted(**_vm),
    events.VmStopped(**_vm, reason="wish"),
    events.VmCrashed(**_vm, detail="the guest panicked"),
    events.VmPaused(**_vm),
    events.VmResumed(**_vm),
    events.VmRebooted(vm=VM, host=HOST),
    events.VmDeleted(**_vm),
    events.VmDrifted(**_vm, expected="running", found="stopped"),
    events.VmFailed(**_vm, detail="image debian-12 is not on this host"),
    events.VmGuestChanged(vm=VM, host=HOST, guest=GUEST),
    events.HostRegistered(facts=FACTS),
    events.HostConfigured(config=resources.HostConfig(host=HOST, generation=1, maintenance=True)),
    events.HostSilent(host=HOST, silent_s=12.5),
    events.HostReturned(host=HOST),
    events.PolicyApplied(definition=POLICY),
    events.PolicyRemoved(name=POLICY.name, version=4),
    events.TemplateApplied(definition=TEMPLATE),
    events.TemplateRemoved(name=TEMPLATE.name, version=2),
    events.ProjectApplied(definition=PROJECT),
    events.ProjectRemoved(name=PROJECT.name, version=3),
    events.RuleApplied(definition=ALERT_RULE),
    events.RuleRemoved(name=ALERT_RULE.name, version=3),
    events.LedgerSealed(seal=SEAL),
    events.LedgerGapFound(epoch=0, first=4117, last=4120),
    events.LedgerGapSettled(epoch=0, first=4117, last=4120, filled=3, unreadable=0, missing=1),
    events.LedgerArchived(anchor=ANCHOR),
    events.ReplayEnded(name="friday", published=4711, complete=True),
    events.FleetRestored(part=1, of=2, written=2, kept=0),
    events.AlertFired(alert=ALERT),
    events.AlertResolved(
        alert=msgspec.structs.replace(ALERT, phase="resolved", value=1.0, resolved_at=AT),
    ),
    events.AlertSilenced(silence=SILENCE),
    events.AlertUnsilenced(rule=ALERT.rule),
    events.InventoryRebuilt(
        rows=4120,
        tables=(
            TableComparison(
                table="vms",
                rows=12,
                live=sha256(b"live").hexdigest(),
                rebuilt=sha256(b"rebuilt").hexdigest(),
                differing=1,
                keys=(VM,),
            ),
        ),
        taken=True,
    ),
)

FRAME = telemetry.HostFrame(
    host=HOST,
    site=SITE,
    at=AT,
    sequence=42,
    interval_s=5.0,
    sample=HOST_SAMPLE,
    vms=telemetry.VmColumns(
        ids=(VM,),
        state=("running",),
        cpus=(2,),
        cpu_time_ns=(12_345_678_900,),
        cpu_steal_ns=(93_118_200,),
        memory_max_kib=(1_048_576,),
        memory_rss_kib=(402_148,),
        memory_available_kib=(1_011_712,),
        memory_unused_kib=(801_248,),
        block_read_bytes=(120_586_240,),
        block_write_bytes=(9_437_184,),
        block_read_requests=(4_120,),
        block_write_requests=(310,),
        net_receive_bytes=(88_120,),
        net_transmit_bytes=(40_312,),
    ),
    guests=(GUEST_SAMPLE,),
)

OPERATION_SAMPLE = resources.Operation(
    id=OPERATION,
    command="vm.create",
    kind="vm",
    target=VM,
    name=SPEC.name,
    phase="running",
    actor=ACTOR,
    created_at=AT,
    updated_at=AT,
    progress=0.5,
    detail="define the domain",
    host=HOST,
    trail=(
        resources.OperationStep(
            event="operation.accepted", source="gateway", at=AT, elapsed_ms=0.0
        ),
        resources.OperationStep(
            event="vm.scheduled", source="scheduler", at=AT, elapsed_ms=4.2, detail="h1"
        ),
    ),
    placement=PLACEMENT,
)

VM_SAMPLE = resources.Vm(
    id=VM,
    site=SITE,
    spec=SPEC,
    state="running",
    power="running",
    host=HOST,
    generation=1,
    created_at=AT,
    updated_at=AT,
    guest=GUEST,
    placement=PLACEMENT,
    operation=OPERATION,
)

HOST_RESOURCE = resources.Host(
    name=HOST,
    site=SITE,
    state="online",
    facts=FACTS,
    config=resources.HostConfig(host=HOST),
    reserved_cpus=2,
    reserved_memory_mib=1024,
    reserved_disk_gib=10,
    vms=1,
    registered_at=AT,
    updated_at=AT,
)

VM_READING = telemetry.VmReading(
    vm=VM,
    host=HOST,
    at=AT,
    state="running",
    cpu_busy=0.14,
    cpus=2,
    memory_max_kib=1_048_576,
    memory_rss_kib=402_148,
    guest=GUEST_SAMPLE,
)

HOST_READING = telemetry.HostReading(
    host=HOST, site=SITE, at=AT, interval_s=5.0, sample=HOST_SAMPLE, vms=1
)

HOST_LOAD = loads.HostLoad(
    host=HOST,
    site=SITE,
    at=AT,
    cpu_busy=0.25,
    load1=1.5,
    memory_total_bytes=68_719_476_736,
    memory_used_bytes=17_179_869_184,
    vms_running=1,
    recent_cpu=(0.1, None, 0.25),
)

VM_LOAD = loads.VmLoad(
    vm=VM,
    name=SPEC.name,
    host=HOST,
    site=SITE,
    at=AT,
    state="running",
    cpus=2,
    cpu_busy=0.14,
    memory_max_bytes=1_073_741_824,
    memory_used_bytes=411_799_552,
    sent_bytes_s=1250.0,
    recent_cpu=(0.1, 0.14),
)

METRICS = metrics.Metrics(
    vm=VM,
    start=AT,
    step_s=300,
    points=3,
    series={
        "cpu_busy": metrics.SeriesValues(
            unit="cpus", avg=(0.14, None, 0.2), min=(0.02, None, 0.1), max=(1.9, None, 0.3)
        )
    },
)

LIVE_SAMPLE = metrics.LiveSample(at=AT, values={"cpu_busy": 0.14, "memory_resident": 411799552.0})

FORECAST = forecasts.Forecast(
    command="vm.create",
    kind="vm",
    target="web-1",
    host=HOST,
    changes=(
        forecasts.Change(field="host", after=HOST),
        forecasts.Change(field="power", after="running"),
    ),
    placement=PLACEMENT,
)

REVIEW = forecasts.PlacementReview(
    vm=VM, name=SPEC.name, host=HOST, placement=PLACEMENT, now=FORECAST
)

TRIAL = forecasts.PolicyTrial(given=FORECAST, in_force=FORECAST)

CAPACITY = forecasts.Capacity(
    site=SITE,
    policy="spread",
    policy_version=1,
    project=PROJECT.name,
    count=27,
    hosts=(forecasts.Room(host=HOST, count=27),),
    hosts_with_room=1,
    by="rack",
    values=(forecasts.RoomByLabel(value="a", hosts=1, count=27),),
    excluded=(
        resources.Excluded(
            host=HOST, rule="memory", detail="needs 1024 MiB, 512 of 65024 MiB are left"
        ),
    ),
    excluded_by={"memory": 1},
    over_quota=("64 CPUs are allowed, 64 are taken, 1 more are asked for",),
    displaced=forecasts.Displaced(
        vms=2,
        placed=1,
        stuck=(
            forecasts.Stuck(
                vm=VM,
                name=SPEC.name,
                host="h2",
                detail="No host of 1 can take 2 CPUs and 1024 MiB of memory: 1 by labels.",
                excluded_by={"labels": 1},
            ),
        ),
    ),
)

PLAN = plans.Plan(
    id=derived_id(OPERATION, "plan"),
    kind="drain",
    made_at=AT,
    site=SITE,
    outcome="reached",
    detail="1 move empty h1",
    host=HOST,
    policies={"spread": 1},
    before=plans.Imbalance(total=0.1, cpu=0.05, memory=0.15),
    after=plans.Imbalance(total=0.0, cpu=0.0, memory=0.0),
    cost_mib=1024,
    moves=(
        plans.Move(
            vm=VM,
            name=SPEC.name,
            from_host=HOST,
            to_host="h2",
            live=True,
            memory_mib=1024,
            cost_mib=1024,
            reason="best of 1 by spread, score 0.9",
            revision=17,
        ),
    ),
    relies_on=(
        plans.HostReliance(host=HOST, facts_revision=3, config_revision=9, vms="6b86b273ff34fce1"),
        plans.HostReliance(host="h2", facts_revision=4, config_revision=0, vms="e3b0c44298fc1c14"),
    ),
)

PLAN_CHECK = plans.PlanCheck(plan=PLAN.id, checked_at=AT)

VALUES: tuple[Struct, ...] = (
    PLAN,
    PLAN_CHECK,
    ASSIGNMENT,
    FRAME,
    OPERATION_SAMPLE,
    VM_SAMPLE,
    HOST_RESOURCE,
    VM_READING,
    HOST_READING,
    METRICS,
    HOST_LOAD,
    VM_LOAD,
    ALERT,
    ALERT_RULE,
    SILENCE,
    FORECAST,
    REVIEW,
    CAPACITY,
    PROJECT_USE,
    INVALID,
)
"""What travels without an envelope: FLEET's values, telemetry, answers."""


ABOUT = {
    "vm": VM,
    "host": HOST,
    "operation": OPERATION,
    "policy": POLICY.name,
    "template": TEMPLATE.name,
    "project": PROJECT.name,
    "rule": ALERT_RULE.name,
    "ledger": "events",
    "inventory": "inventory",
    "fleet": "fleet",
    "replay": "friday",
    "alert": ALERT.rule,
}


def enveloped(message: Struct) -> Envelope[Struct]:
    """The sample of a message of the catalogue in its envelope."""
    channel = BY_MESSAGE[type(message)]
    kind = channel.name.partition(".")[0]
    is_command = channel.stream == COMMANDS
    identity = OPERATION if is_command else derived_id(OPERATION, channel.name)
    about = ABOUT[kind]
    return wrap(
        message,
        id=identity,
        site=SITE,
        sender=_sender(channel),
        at=time_of(identity),
        about=f"{kind}/{about}",
        operation=OPERATION,
        cause=None if is_command else OPERATION,
        actor=ACTOR,
        traceparent=TRACEPARENT,
    )


def _sender(channel: Channel) -> str:
    """Commands come from the gateway, actions from the scheduler, events from their owner."""
    by_stream = {COMMANDS: "gateway", ACTIONS: "scheduler"}
    owner = HOST if channel.owner == "hostagent" else channel.owner
    return by_stream.get(channel.stream, owner)


def _proven() -> ProvenEvent:
    envelope = encode(enveloped(events.VmStarted(**_vm)))
    place = Place(
        number=4117,
        position=4117,
        received_at=AT,
        previous=32 * "0a",
        hash=32 * "0b",
        operation=OPERATION,
        vm=VM,
        host=HOST,
    )
    return proven_event(envelope, place)


PROVEN_EVENT = _proven()


RECEIPT = "$JS.ACK.EVENTS.SUB_pager.1.4711.17.1733563800000000000.2"
TAKEN = TakenEvents(
    items=(
        TakenEvent(
            sequence=4711,
            delivered=1,
            receipt=RECEIPT,
            event=Raw(encode(enveloped(events.VmStarted(**_vm)))),
        ),
    )
)
