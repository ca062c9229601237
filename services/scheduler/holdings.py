"""Which VM is assigned to which host: the assignments of FLEET by VM, host and name.

Pure. What an assignment takes of its host and its project is the fleet's to count (`fleet.py`); here it
is found.
"""

from __future__ import annotations

from services.scheduler.model import Held

GONE_LIMIT = 10_000
"""Forgotten VMs whose revision is remembered, so that a late update does not bring them back."""

Key = tuple[str, str]
"""VM and host."""


class Holdings:
    """Every assignment that is known, and the last revisions of those that are no more."""

    def __init__(self) -> None:
        self._held: dict[Key, Held] = {}
        self._hosts_of: dict[str, set[str]] = {}
        self._vms_on: dict[str, set[str]] = {}
        self._vms_named: dict[str, set[str]] = {}
        self._gone: dict[str, dict[str, int]] = {}
        """VM → host → revision at which the key was purged."""

    def copy(self) -> Holdings:
        twin = Holdings()
        twin._held = self._held.copy()
        twin._hosts_of = _copied(self._hosts_of)
        twin._vms_on = _copied(self._vms_on)
        twin._vms_named = _copied(self._vms_named)
        twin._gone = {vm: hosts.copy() for vm, hosts in self._gone.items()}
        return twin

    # reading

    def at(self, vm: str, host: str) -> Held | None:
        return self._held.get((vm, host))

    def of(self, vm: str) -> Held | None:
        """The assignment of a VM: the one that has not ended, else the newest."""
        found = [self._held[vm, host] for host in self._hosts_of.get(vm, ())]
        return max(found, key=_standing, default=None)

    def hosts_of(self, vm: str) -> list[str]:
        return sorted(self._hosts_of.get(vm, ()))

    def on(self, host: str) -> list[Held]:
        """The assignments to a host, those that have ended included, by VM."""
        return [self._held[vm, host] for vm in sorted(self._vms_on.get(host, ()))]

    def live_named(self, name: str) -> tuple[str, ...]:
        """Ids of the VMs of this name whose end has not been decided."""
        ids = sorted(self._vms_named.get(name, ()))
        return tuple(vm for vm in ids if (held := self.of(vm)) and not held.assignment.ended)

    def newest(self, count: int) -> list[Held]:
        """The assignments written last, oldest of them first."""
        written = sorted(self._held.values(), key=lambda held: held.revision)
        return written[-count:]

    def revision(self, vm: str, host: str) -> int:
        held = self._held.get((vm, host))
        return held.revision if held else 0

    def is_news(self, *, vm: str, host: str, revision: int) -> bool:
        """Whether what FLEET said of an assignment at this revision is still to be learned."""
        return revision > max(self.revision(vm, host), self._gone.get(vm, {}).get(host, 0))

    def was_forgotten(self, vm: str) -> bool:
        """Whether a VM of this id lived and was deleted, as far as is remembered."""
        return vm in self._gone

    # changing

    def put(self, held: Held) -> None:
        """An assignment that is new, or in place of the one of its VM and host."""
        here = held.assignment
        self.take_out(here.vm, here.host)
        self._held[here.vm, here.host] = held
        self._hosts_of.setdefault(here.vm, set()).add(here.host)
        self._vms_on.setdefault(here.host, set()).add(here.vm)
        self._vms_named.setdefault(here.spec.name, set()).add(here.vm)

    def take_out(self, vm: str, host: str) -> Held | None:
        """Answers what was taken out, if there was anything."""
        held = self._held.pop((vm, host), None)
        if held is not None:
            _discard(self._hosts_of, vm, host)
            _discard(self._vms_on, host, vm)
            if vm not in self._hosts_of:
                _discard(self._vms_named, held.assignment.spec.name, vm)
        return held

    def remember_gone(self, *, vm: str, host: str, revision: int) -> None:
        """The key was purged at `revision`."""
        self._gone.setdefault(vm, {})[host] = revision
        while len(self._gone) > GONE_LIMIT:
            self._gone.pop(next(iter(self._gone)))


def _standing(held: Held) -> tuple[bool, int]:
    return not held.assignment.ended, held.assignment.generation


def _copied(sets: dict[str, set[str]]) -> dict[str, set[str]]:
    return {key: members.copy() for key, members in sets.items()}


def _discard(sets: dict[str, set[str]], key: str, member: str) -> None:
    members = sets.get(key, set())
    members.discard(member)
    if not members:
        sets.pop(key, None)
