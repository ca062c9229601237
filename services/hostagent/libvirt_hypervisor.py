"""The Hypervisor on libvirt: QEMU for real, and libvirt's own test driver.

Only the modules `libvirt_*` import libvirt. Every method is one trip into a thread; what is destructive
first makes sure that the domain is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import libvirt
import libvirt_qemu
import structlog
from msgspec.structs import replace

from schemas.assignments import VmAssignment
from schemas.ids import VmId, is_uuid7
from schemas.resources import DiskSpec, ForeignDomain, StopMode
from schemas.telemetry import VmColumns
from services.hostagent import libvirt_domain as domains
from services.hostagent import libvirt_domain_xml as domain_xml
from services.hostagent import libvirt_node, libvirt_stats
from services.hostagent.disks import Disks
from services.hostagent.hypervisor import (
    Around,
    Changed,
    Claimed,
    Connected,
    Description,
    HypervisorFailure,
    HypervisorUnavailable,
    Notice,
    Panicked,
    Rebooted,
    Survey,
    freely,
)
from services.hostagent.libvirt_connection import Gone, LibvirtConnection
from services.hostagent.libvirt_moves import Moves
from services.hostagent.libvirt_promises import Promises
from services.hostagent.model import Move, Observed

log = structlog.get_logger(__name__)

CONTROL, BULK, SAMPLE, AGENT = "control", "bulk", "sample", "agent"
SAMPLE_CALLS = 3
"""Bulk samples that may hang in libvirt, each on a guest whose QEMU does not answer: fewer than the five
calls that libvirtd takes of one connection at a time."""
PANICKED = "the guest's kernel panicked"
PING = b'{"execute":"guest-ping"}'
PING_S = 2.0
KIB_PER_MIB = 1024

FROM_OUTSIDE = libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_INTERFACE
"""The statistics for which QEMU itself is not asked (for the CPU's it is: halt polling)."""
EVERYTHING = (
    FROM_OUTSIDE
    | libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_VCPU
    | libvirt.VIR_DOMAIN_STATS_BLOCK
)


def driver_of(uri: str) -> str:
    """`qemu`, `test`, …: the driver that a libvirt URI names."""
    return urlsplit(uri).scheme.partition("+")[0]


def user_networks_of(uri: str) -> tuple[str, ...]:
    """The networks that QEMU itself has to play: a session's libvirt may make no bridge."""
    return ("default",) if urlsplit(uri).path == "/session" else ()


class LibvirtHypervisor:
    """One libvirt. `domain_type` is how guests are run on it; `vsock`: they get such a device."""

    def __init__(
        self,
        *,
        uri: str,
        domain_type: Literal["kvm", "qemu", "test"],
        disks: Disks,
        cmdline: str,
        threads: int,
        agent_threads: int,
        timeout_s: float,
        keepalive_s: int,
        sample_timeout_s: float = 2.0,
        vsock: bool = False,
        pools: Mapping[str, str] | None = None,
        devices: Mapping[str, str] | None = None,
    ) -> None:
        self._sample_timeout_s = sample_timeout_s
        self._domain_type: Literal["kvm", "qemu", "test"] = domain_type
        self._user_networks = user_networks_of(uri)
        self._vsock = vsock
        self._disks = disks
        self._cmdline = cmdline
        self._arch = "x86_64"
        self._ours: dict[str, bool] = {}
        self._panicked: set[str] = set()
        self._promises = Promises(disks, pools=pools or {}, devices=devices or {})
        self._connection = LibvirtConnection(
            uri,
            pools={CONTROL: threads, BULK: 1, SAMPLE: SAMPLE_CALLS, AGENT: agent_threads},
            timeout_s=timeout_s,
            keepalive_s=keepalive_s,
        )
        self._connection.listen(self._on_notice)
        self._moves = Moves(self._connection, disks, self._layout)

    @property
    def connected(self) -> bool:
        return self._connection.connected

    @property
    def pools(self) -> Mapping[str, Path]:
        return self._promises.pools

    @property
    def guests_speak(self) -> bool:
        return self._domain_type != "test"

    def listen(self, listener: Callable[[Notice], None]) -> None:
        self._connection.listen(listener)

    async def run(self) -> None:
        await self._connection.run()

    def _on_notice(self, notice: Notice) -> None:
        """What was known of whose a domain is may have changed."""
        if isinstance(notice, Changed):
            self._ours.pop(notice.domain, None)
        elif isinstance(notice, Panicked):
            self._panicked.add(notice.domain)
        elif isinstance(notice, Connected):
            self._ours.clear()
            self._panicked.clear()

    # looking

    async def describe(self) -> Description:
        description = await self._connection.call(BULK, self._describe)
        self._arch = description.arch
        return description

    async def survey(self) -> Survey:
        return await self._connection.call(BULK, self._survey)

    async def observe(self, vm: VmId) -> Observed | None:
        try:
            look = partial(domains.observe, vm=vm, vsock=self._vsock)
            seen = await self._connection.call(CONTROL, look)
        except Gone:
            self._panicked.discard(vm)
            return None
        if vm not in self._panicked:
            return seen
        if seen.state == "stopped" and seen.cause == "crashed":
            return replace(seen, detail=PANICKED)
        self._panicked.discard(vm)
        return seen

    async def sample(self) -> VmColumns:
        """A guest whose QEMU hangs holds the call that asks it, and the next one passes it by
        (NOWAIT); with too many that hang, only what needs no answer of QEMU is asked for."""
        while self._connection.in_flight(SAMPLE) < SAMPLE_CALLS:
            began = self._connection.in_flight(SAMPLE)
            try:
                return await self._connection.call(
                    SAMPLE,
                    partial(self._sample, wanted=EVERYTHING),
                    timeout_s=self._sample_timeout_s,
                )
            except HypervisorUnavailable:
                if self._connection.in_flight(SAMPLE) == began:
                    raise
                log.warning("sample_hangs", calls=began + 1)
        return await self._connection.call(BULK, partial(self._sample, wanted=FROM_OUTSIDE))

    async def memory(self) -> tuple[int, int] | None:
        return await self._connection.call(BULK, libvirt_node.memory)

    # doing

    async def create_disk(self, vm: VmId, disk: DiskSpec) -> None:
        pool = None
        if disk.pool is not None:
            name = disk.pool
            pool = await self._connection.call(BULK, lambda conn: self._promises.pool(conn, name))
        await self._disks.create(vm, disk, pool=pool)

    async def write_seed(self, assignment: VmAssignment) -> None:
        await self._disks.write_seed(assignment)

    async def remove_disks(self, vm: VmId) -> None:
        if await self.observe(vm) is not None:
            raise HypervisorFailure("the disks belong to a domain that is still there")
        await self._disks.remove(vm)

    async def move(self, moves: Sequence[Move], around: Around = freely) -> None:
        try:
            await self._connection.call(CONTROL, lambda conn: self._moves.do(conn, moves, around))
        except Gone as gone:
            raise HypervisorFailure(str(gone)) from gone

    async def ask_to_stop(self, vm: VmId) -> None:
        await self._ask(vm, domains.shutdown_by_agent, domains.shutdown)

    async def reboot(self, vm: VmId, mode: StopMode) -> None:
        if mode == "forced":
            await self._on(vm, domains.reset)
        else:
            await self._ask(vm, domains.reboot_by_agent, domains.reboot)
        if self._domain_type == "test":
            # The test driver reboots without a word.
            self._connection.tell(Rebooted(domain=vm))

    async def ask_guest(self, vm: VmId, command: bytes, *, timeout_s: float) -> bytes:
        if self._domain_type == "test":
            raise HypervisorFailure("the test driver's guests have no agent")

        def ask(conn: Any) -> bytes:
            domain = conn.lookupByUUIDString(vm)
            answer: str = libvirt_qemu.qemuAgentCommand(
                domain, command.decode(), max(1, int(timeout_s)), 0
            )
            return answer.encode()

        try:
            # libvirt keeps the time itself; ours only catches a libvirt that does not answer.
            return await self._connection.call(AGENT, ask, timeout_s=timeout_s + 2)
        except Gone as gone:
            raise HypervisorFailure(str(gone)) from gone

    # inside

    async def _ask(
        self, vm: VmId, by_agent: Callable[[Any], None], by_button: Callable[[Any], None]
    ) -> None:
        """Ask a guest for something: by its agent if that answers a ping, else by the ACPI button.

        The ping comes first because libvirt waits a minute for an agent that has fallen silent.
        """
        if self._domain_type != "test":
            try:
                await self.ask_guest(vm, PING, timeout_s=PING_S)
                await self._on(vm, by_agent, pool=AGENT)
            except (HypervisorFailure, HypervisorUnavailable):
                log.debug("guest_agent_silent", vm=vm)
            else:
                return
        await self._on(vm, by_button)

    async def _on(self, vm: VmId, work: Callable[[Any], None], *, pool: str = CONTROL) -> None:
        try:
            await self._connection.call(pool, lambda conn: work(conn.lookupByUUIDString(vm)))
        except Gone as gone:
            raise HypervisorFailure(str(gone)) from gone

    def _layout(self, conn: Any, assignment: VmAssignment) -> domain_xml.Layout:
        vm, spec = assignment.vm, assignment.spec
        image = self._disks.image(spec)
        return domain_xml.Layout(
            domain_type=self._domain_type,
            arch=self._arch,
            disks=tuple(self._disks.path(vm, disk.name) for disk in spec.disks),
            seed=self._disks.seed(vm) if spec.seeded else None,
            console_log=self._disks.folder(vm) / "console.log",
            kernel=image.kernel if image else None,
            initrd=image.initrd if image else None,
            cmdline=self._cmdline,
            user_networks=self._user_networks,
            node=self._promises.node(conn, assignment),
            devices=self._promises.devices(conn, assignment),
            cid=self._promises.cid(vm) if self._vsock else None,
        )

    def _is_ours(self, domain: Any, uuid: str) -> bool:
        if not is_uuid7(uuid):
            return False
        ours = self._ours.get(uuid)
        if ours is None:
            ours = self._ours[uuid] = domains.has_marker(domain)
        return ours

    def _survey(self, conn: Any) -> Survey:
        ours, foreign = [], []
        for domain, stats in conn.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE, 0):
            uuid = domain.UUIDString()
            power = libvirt_stats.power_of(stats.get("state.state", 0))
            if self._is_ours(domain, uuid):
                ours.append(Claimed(vm=uuid, state=power))
                continue
            info = domain.info()
            foreign.append(
                ForeignDomain(
                    name=domain.name(),
                    uuid=uuid,
                    state=power,
                    cpus=info[3],
                    memory_mib=info[1] // KIB_PER_MIB,
                )
            )
        return Survey(ours=tuple(ours), foreign=tuple(sorted(foreign, key=lambda d: d.uuid)))

    def _sample(self, conn: Any, *, wanted: int) -> VmColumns:
        flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
        if self._domain_type == "test":
            # The test driver makes its numbers up, all but the state.
            wanted = libvirt.VIR_DOMAIN_STATS_STATE
            flags = 0
        rows = ((d, d.UUIDString(), stats) for d, stats in conn.getAllDomainStats(wanted, flags))
        return libvirt_stats.columns([(u, s) for d, u, s in rows if self._is_ours(d, u)])

    def _describe(self, conn: Any) -> Description:
        return libvirt_node.describe(
            conn,
            domain_type=self._domain_type,
            user_networks=self._user_networks,
            pools=self._promises.look_at_pools(conn),
            devices=tuple(one.device for one in self._promises.offers(conn)),
            vsock=self._vsock,
        )
