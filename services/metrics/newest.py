"""What is newest, by host and by VM: the one thing in this service that changes.

What belongs here: keeping, finding, forgetting. What does not: what follows from a frame (`decide`).
"""

from __future__ import annotations

from schemas.telemetry import HostFrame
from services.metrics.decide import is_stale, take
from services.metrics.model import OUTCOMES, Fleet, Garbled, HostNewest, Outcome, Stale

Key = tuple[str, str]


class Newest:
    """At most `max_hosts` hosts; those unheard for longer than `stale_s` seconds are forgotten."""

    def __init__(self, *, max_hosts: int, stale_s: float) -> None:
        self._max_hosts = max_hosts
        self._stale_s = stale_s
        self._hosts: dict[Key, HostNewest] = {}
        self._host_of: dict[str, Key] = {}
        self._frames: dict[Outcome, int] = dict.fromkeys(OUTCOMES, 0)

    def put(self, frame: HostFrame | Garbled, *, now_s: float) -> Outcome:
        outcome = self._put(frame, now_s)
        self._frames[outcome] += 1
        return outcome

    def _put(self, frame: HostFrame | Garbled, now_s: float) -> Outcome:
        if isinstance(frame, Garbled):
            return "garbled"
        key = (frame.site, frame.host)
        before = self._hosts.get(key)
        if before is None and len(self._hosts) >= self._max_hosts:
            return "refused"
        after = take(before, frame, now_s=now_s)
        if isinstance(after, Stale):
            return "stale"
        self._forget_vms(key, before)
        self._hosts[key] = after
        self._host_of.update(dict.fromkeys(after.columns.ids, key))
        return "taken"

    def forget_stale(self, *, now_s: float) -> list[str]:
        """Forget who has been silent for too long; returns their names."""
        stale = [
            key
            for key, newest in self._hosts.items()
            if is_stale(newest, now_s=now_s, stale_s=self._stale_s)
        ]
        for key in stale:
            self._forget_vms(key, self._hosts.pop(key))
        return sorted(host for _, host in stale)

    def _forget_vms(self, key: Key, host: HostNewest | None) -> None:
        """A VM that has meanwhile been told of by another host stays that one's."""
        for vm in host.columns.ids if host is not None else ():
            if self._host_of.get(vm) == key:
                del self._host_of[vm]

    def host(self, name: str) -> HostNewest | None:
        """By name alone; should two sites have one of that name, the one that was heard last."""
        found = [newest for (_, host), newest in self._hosts.items() if host == name]
        return max(found, key=lambda newest: newest.heard_s, default=None)

    def host_of_vm(self, vm: str) -> HostNewest | None:
        key = self._host_of.get(vm)
        return self._hosts[key] if key is not None else None

    def fleet(self) -> Fleet:
        """All of it, as it is now."""
        return Fleet(hosts=dict(self._hosts), frames=dict(self._frames))
