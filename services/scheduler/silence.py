"""Which hosts are silent: leases that ran out while one could hear.

Pure. LEASES lives in the bus's memory: when the bus was away every lease is gone and nobody is dead.
So silence counts only from the moment the bus was there again, and only while another host has renewed
its lease all through a lease's time. A host with no others to compare it with is given more patience.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.scheduler.model import HostRow, Limits
from services.scheduler.reasons import NEVER_HEARD, lease_words


def lease_problem(host: HostRow, *, limits: Limits, now: float) -> str | None:
    """In words, why a host does not count as alive now; None if it does."""
    if host.renewed_at is None:
        return NEVER_HEARD
    age_s = now - host.renewed_at
    return None if age_s <= limits.lease_s else lease_words(age_s, limits.lease_s)


def returned(
    hosts: Sequence[HostRow], *, silent: frozenset[str], now: float, limits: Limits
) -> tuple[str, ...]:
    """Those of `silent` that hold a good lease now."""
    back = [host.name for host in hosts if lease_problem(host, limits=limits, now=now) is None]
    return tuple(sorted(silent.intersection(back)))


def newly_silent(
    hosts: Sequence[HostRow],
    *,
    silent: frozenset[str],
    listening_since: Mapping[str, float],
    now: float,
    limits: Limits,
) -> dict[str, float]:
    """Host → seconds of silence, for those that are silent now and were not yet in `silent`.

    `listening_since`: host → since when its renewals would have been heard.
    """
    others = [host for host in hosts if host.name not in silent]
    witnesses = {host.name for host in others if _bears_witness(host, now=now, limits=limits)}
    found: dict[str, float] = {}
    for host in sorted(others, key=lambda row: row.name):
        silence_s = now - max(listening_since[host.name], host.renewed_at or 0.0)
        alone = len(others) == 1
        patience_s = limits.alone_patience_s if alone else limits.lease_s
        if silence_s > patience_s and (alone or witnesses - {host.name}):
            found[host.name] = silence_s
    return found


def _bears_witness(host: HostRow, *, now: float, limits: Limits) -> bool:
    """Its renewals go on without a gap for longer than a lease: whoever listens can hear."""
    if host.renewed_at is None or host.renewing_since is None:
        return False
    return now - host.renewed_at <= limits.lease_s < host.renewed_at - host.renewing_since
