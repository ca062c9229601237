"""Moves on one domain, in one trip into a thread: looked up once, told of once, and no look at it between.

What each does stands in `libvirt_domain`. What is destructive first makes sure that the domain is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import libvirt

from schemas.assignments import VmAssignment
from services.hostagent import libvirt_domain as domains
from services.hostagent import libvirt_domain_xml as domain_xml
from services.hostagent.disks import Disks
from services.hostagent.hypervisor import Around, HypervisorFailure
from services.hostagent.libvirt_connection import LibvirtConnection
from services.hostagent.model import (
    Define,
    Destroy,
    Move,
    Pause,
    Resume,
    Stamp,
    Start,
    Undefine,
)

LayOut = Callable[[Any, VmAssignment], domain_xml.Layout]


class Moves:
    """What can be done to the domains of one connection."""

    def __init__(self, connection: LibvirtConnection, disks: Disks, lay_out: LayOut) -> None:
        self._connection = connection
        self._disks = disks
        self._lay_out = lay_out

    def do(self, conn: Any, moves: Sequence[Move], around: Around) -> None:
        """In a thread: all of them, or as many as `around` lets."""
        domain = None
        for move in moves:
            with around(move) as wanted:
                if not wanted:
                    return
                domain = self._do(conn, move, domain)

    def _do(self, conn: Any, move: Move, known: Any) -> Any:
        """One move. Takes the domain if it is known, and answers it."""
        if isinstance(move, Define):
            return self._define(conn, move.assignment)
        if isinstance(move, Destroy | Undefine):
            return self._end(conn, move, known)
        vm = move.assignment.vm if isinstance(move, Stamp) else move.vm
        domain = known or conn.lookupByUUIDString(vm)
        match move:
            case Stamp(assignment):
                domains.stamp(domain, assignment)
            case Start():
                self._start(domain, vm)
            case Pause():
                domains.pause(domain)
            case Resume():
                domains.resume(domain)
        return domain

    def _define(self, conn: Any, assignment: VmAssignment) -> Any:
        vm = assignment.vm
        if missing := self._disks.missing(vm, assignment.spec):
            raise HypervisorFailure(f"disk {', '.join(missing)} is missing")
        xml = domain_xml.build(assignment, self._lay_out(conn, assignment))
        with self._connection.own(vm, libvirt.VIR_DOMAIN_EVENT_DEFINED):
            return domains.define(conn, xml, assignment)

    def _start(self, domain: Any, vm: str) -> None:
        with self._connection.own(vm, libvirt.VIR_DOMAIN_EVENT_STARTED) as own:
            own.comes = domains.start(domain)

    def _end(self, conn: Any, move: Destroy | Undefine, known: Any) -> Any:
        """What cannot be undone. A domain that is gone already is as wished."""
        try:
            domain = known or conn.lookupByUUIDString(move.vm)
            if not domains.has_marker(domain):
                raise HypervisorFailure("the domain is not Vireo's: it is left alone")
            if isinstance(move, Destroy):
                domains.destroy(domain)
            else:
                domains.undefine(domain)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            return None
        return domain
