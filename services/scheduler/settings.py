"""The scheduler's settings: one frozen Struct. Values only."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from chassis.settings import ChassisSettings, Seconds
from schemas.plans import MoveCount, Share
from services.scheduler.balance import Taste
from services.scheduler.imbalance import Weights
from services.scheduler.model import Limits

Ratio = Annotated[float, Meta(gt=0, le=64)]
Count = Annotated[int, Meta(ge=1, le=10_000)]


class SchedulerSettings(ChassisSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much is promised of each host, how long silence is borne, how much is done at once."""

    cpu_overcommit: Annotated[Ratio, Meta(description="Virtual CPUs promised per CPU")] = 4.0
    memory_overcommit: Annotated[Ratio, Meta(description="Memory promised per MiB there is")] = 1.0
    disk_overcommit: Annotated[Ratio, Meta(description="Disk promised per GiB there is")] = 1.0
    reserve_memory_mib: Annotated[
        int, Meta(ge=0, description="Memory of each host kept for the host itself")
    ] = 512
    reserve_disk_gib: Annotated[
        int, Meta(ge=0, description="Disk of each host kept for the host itself")
    ] = 0
    policy: Annotated[
        Literal["spread", "pack", "balanced", "energy", "weighted-random"],
        Meta(description="How hosts are weighed for VMs that name no policy of their own"),
    ] = "spread"
    lease_s: Annotated[Seconds, Meta(description="A host whose lease is older gets no new VM")] = (
        10.0
    )
    settle_s: Annotated[
        Seconds,
        Meta(
            description="After the bus was away, wait so long for leases before refusing for them"
        ),
    ] = 12.0
    alone_patience_s: Annotated[
        Seconds, Meta(description="Silence after which a host without others to compare counts")
    ] = 30.0
    telemetry_fresh_s: Annotated[
        Seconds, Meta(description="Older samples of a host are not weighed")
    ] = 20.0
    load_tau_s: Annotated[
        Seconds, Meta(description="Time constant by which a host's load is averaged")
    ] = 30.0
    load_band: Annotated[
        float,
        Meta(ge=0, le=1, description="Change of a host's average load that is not yet weighed"),
    ] = 0.05
    exact_hosts: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Hosts up to which every decision looks at all")
    ] = 20_000
    part_hosts: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Beyond that, hosts looked at in one go")
    ] = 8_192
    watch_tick_s: Annotated[Seconds, Meta(description="How often silence is looked for")] = 1.0
    fleet_check_s: Annotated[
        Seconds, Meta(description="How often to see that FLEET is still the same bucket")
    ] = 2.0
    settle_tick_s: Annotated[
        Seconds, Meta(description="How often a held-back request is decided again")
    ] = 0.2
    retry_s: Annotated[
        Seconds, Meta(description="Pause before trying again what others or the bus prevented")
    ] = 1.0
    action_deadline_s: Annotated[
        Seconds, Meta(description="Time in which a host must have begun an action, as a reboot")
    ] = 60.0
    action_keep_s: Annotated[
        Seconds,
        Meta(description="How long an action outlives its deadline, for its host to refuse it"),
    ] = 3600.0
    decide_attempts: Annotated[
        int, Meta(ge=1, le=100, description="Decisions per delivery when others write first")
    ] = 5
    concurrency: Annotated[Count, Meta(description="Commands in hand at once")] = 256
    tick_commands: Annotated[Count, Meta(description="Commands decided together at most")] = 256
    tick_ms: Annotated[
        float,
        Meta(gt=0, le=1000, description="While others are written, commands gather so long"),
    ] = 2.0
    ack_wait_s: Annotated[
        Seconds, Meta(description="Time after which what a dead scheduler had in hand comes again")
    ] = 3.0
    ranking_limit: Annotated[Count, Meta(description="Best hosts shown in a placement")] = 5
    shown_reasons_limit: Annotated[
        Count, Meta(description="Excluded hosts shown in a placement; all are counted")
    ] = 20
    reasons_limit: Annotated[Count, Meta(description="Excluded hosts shown in a refusal")] = 200
    capacity_limit: Annotated[
        int,
        Meta(ge=1, le=1_000_000, description="VMs placed one by one to answer a capacity question"),
    ] = 5_000
    capacity_questions: Annotated[
        Count, Meta(description="Capacity questions worked on at once, each on a copy of the fleet")
    ] = 2
    balance_start: Annotated[
        Share, Meta(description="Imbalance of the fleet above which moves are proposed")
    ] = 0.1
    balance_stop: Annotated[
        Share, Meta(description="Imbalance down to which they are proposed")
    ] = 0.05
    balance_moves: Annotated[
        MoveCount, Meta(description="Most moves proposed at once to even the fleet out")
    ] = 100
    balance_cpu_weight: Annotated[
        float, Meta(ge=0, le=1000, description="Weight of CPUs promised in the imbalance")
    ] = 1.0
    balance_memory_weight: Annotated[
        float, Meta(ge=0, le=1000, description="Weight of memory promised in the imbalance")
    ] = 1.0
    balance_load_weight: Annotated[
        float, Meta(ge=0, le=1000, description="Weight of measured load in the imbalance")
    ] = 1.0
    balance_cost_per_gib: Annotated[
        float,
        Meta(
            ge=0,
            le=1000,
            description="What copying a GiB must take off the imbalance, times the number of hosts",
        ),
    ] = 0.0005
    balance_pairs: Annotated[
        int,
        Meta(ge=1000, le=100_000_000, description="Moves weighed at once, a VM to a host each"),
    ] = 200_000
    plan_questions: Annotated[
        Count, Meta(description="Plans worked on at once, each on a copy of the fleet")
    ] = 2
    resay_limit: Annotated[
        Count,
        Meta(
            description="Newest assignments checked at a start or takeover for events left unsaid"
        ),
    ] = 256

    @property
    def taste(self) -> Taste:
        """How moves are weighed."""
        return Taste(
            weights=Weights(
                cpu=self.balance_cpu_weight,
                memory=self.balance_memory_weight,
                load=self.balance_load_weight,
            ),
            cost_per_gib=self.balance_cost_per_gib,
            pairs=self.balance_pairs,
        )

    @property
    def limits(self) -> Limits:
        """What the pure decisions need of all this."""
        return Limits(
            cpu_overcommit=self.cpu_overcommit,
            memory_overcommit=self.memory_overcommit,
            disk_overcommit=self.disk_overcommit,
            reserve_memory_mib=self.reserve_memory_mib,
            reserve_disk_gib=self.reserve_disk_gib,
            lease_s=self.lease_s,
            alone_patience_s=self.alone_patience_s,
            telemetry_fresh_s=self.telemetry_fresh_s,
            load_tau_s=self.load_tau_s,
            load_band=self.load_band,
            exact_hosts=self.exact_hosts,
            part_hosts=self.part_hosts,
            ranking=self.ranking_limit,
            shown_reasons=self.shown_reasons_limit,
            reasons=self.reasons_limit,
        )
