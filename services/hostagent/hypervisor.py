"""What the agent needs of a hypervisor, as a Protocol, and the values that go over it.

`libvirt_hypervisor` and `memory_hypervisor` implement it; `tests/contract/test_hypervisor.py` holds for
both. Every effect may be repeated: what is already so is no error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal, Protocol

from msgspec import Struct

from schemas.assignments import VmAssignment
from schemas.ids import VmId
from schemas.resources import DiskSpec, ForeignDomain, HostPool, NumaNode, StopMode
from schemas.rules import HostDevice, HugePages
from schemas.telemetry import VmColumns
from services.hostagent.model import Move, Observed, Power


class HypervisorFailure(Exception):
    """It was refused or went wrong, and will again: the text says why, for people."""


class HypervisorUnavailable(Exception):
    """The hypervisor does not answer now. Nothing is known of what was asked; try again."""


class Description(Struct, frozen=True, kw_only=True):
    """The machine and the hypervisor, as the hypervisor itself describes them."""

    driver: str
    """`QEMU`, `TEST`, …"""
    domain_type: Literal["kvm", "qemu", "test"]
    arch: str
    cpus: int
    memory_mib: int
    numa: tuple[NumaNode, ...] = ()
    huge_pages: tuple[HugePages, ...] = ()
    """On the whole machine; none of a size that no page is set aside of."""
    pools: tuple[HostPool, ...] = ()
    devices: tuple[HostDevice, ...] = ()
    """Those that guests may have, whether one has it or not."""
    cpu_model: str = ""
    libvirt_version: str = ""
    hypervisor_version: str = ""
    networks: tuple[str, ...] = ()
    vsock: bool = False
    """Whether guests get a vsock device."""


class Claimed(Struct, frozen=True, kw_only=True):
    """One of our domains in a survey: only what a bulk call tells."""

    vm: VmId
    state: Power


class Survey(Struct, frozen=True, kw_only=True):
    """Every domain of the host, in one bulk call: ours by id, and the foreign ones."""

    ours: tuple[Claimed, ...] = ()
    foreign: tuple[ForeignDomain, ...] = ()


class Changed(Struct, frozen=True, kw_only=True):
    """Something happened to a domain; look at it. Carries no state on purpose."""

    domain: str
    """Its uuid."""


class Rebooted(Struct, frozen=True, kw_only=True):
    domain: str


class Panicked(Struct, frozen=True, kw_only=True):
    """A guest's kernel has given up; that its domain has stopped is told by itself."""

    domain: str


class GuestAnswers(Struct, frozen=True, kw_only=True):
    """A guest's agent has connected."""

    domain: str


class Connected(Struct, frozen=True, kw_only=True):
    """The connection stands (again): nothing that was known before it may be relied on."""


class Disconnected(Struct, frozen=True, kw_only=True):
    reason: str


Notice = Changed | Rebooted | Panicked | GuestAnswers | Connected | Disconnected

Around = Callable[[Move], AbstractContextManager[bool]]
"""What a move is done inside of; it answers whether the move is still to be done."""


def freely(_move: Move) -> AbstractContextManager[bool]:
    return nullcontext(True)


class Hypervisor(Protocol):
    """Every method may raise HypervisorUnavailable; effects may raise HypervisorFailure."""

    @property
    def connected(self) -> bool: ...

    @property
    def pools(self) -> Mapping[str, Path]:
        """The folder of each storage pool, as it was found when the host was described last."""
        ...

    @property
    def guests_speak(self) -> bool:
        """Whether there are guests in the domains that could say something."""
        ...

    def listen(self, listener: Callable[[Notice], None]) -> None:
        """Call `listener` in the event loop for every notice from now on."""
        ...

    async def run(self) -> None:
        """Connect, stay connected, deliver notices; until cancelled."""
        ...

    async def describe(self) -> Description: ...

    async def survey(self) -> Survey: ...

    async def observe(self, vm: VmId) -> Observed | None:
        """The domain with this id, ours or not; None only when the hypervisor says that there is none."""
        ...

    async def create_disk(self, vm: VmId, disk: DiskSpec) -> None:
        """Make a disk; one that exists is left as it is."""
        ...

    async def write_seed(self, assignment: VmAssignment) -> None:
        """Write the seed of a VM; one that exists is left as it is. Fails where nobody knows any more
        what was to be in it."""
        ...

    async def remove_disks(self, vm: VmId) -> None:
        """Remove every disk, the seed and the folder of a VM. Fails while its domain is there."""
        ...

    async def move(self, moves: Sequence[Move], around: Around = freely) -> None:
        """Do moves on one VM, one after the other in one go, each inside of `around` it, perhaps in another
        thread. The first that fails, or that `around` says no to, is the last.

        Defining makes or changes the persistent definition, with what the placement promised; it fails
        where a disk is missing, or where a promise cannot be kept. What is changed here need not be
        noticed as `Changed`.
        """
        ...

    async def ask_to_stop(self, vm: VmId) -> None:
        """Ask the guest to shut down; returns before it has."""
        ...

    async def reboot(self, vm: VmId, mode: StopMode) -> None:
        """`graceful` asks the guest, `forced` resets it; a `Rebooted` notice follows."""
        ...

    async def sample(self) -> VmColumns:
        """The running numbers of all our domains, in one bulk call that waits for none of them."""
        ...

    async def ask_guest(self, vm: VmId, command: bytes, *, timeout_s: float) -> bytes:
        """One command to the guest's agent. Raises HypervisorFailure when it gives no answer."""
        ...

    async def memory(self) -> tuple[int, int] | None:
        """Total and available memory of the host in MiB, where the hypervisor knows them."""
        ...
