"""From frames to what is newest. Pure: time comes in as an argument."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec.structs import fields

from schemas.telemetry import GuestSample, HostFrame, HostReading, VmColumns, VmReading
from services.metrics.frame_vms import FrameVms
from services.metrics.model import Garbled, HostNewest, Stale, VmSample

_frames = msgspec.json.Decoder(HostFrame)
_COLUMNS = tuple(field.name for field in fields(VmColumns) if field.name != "ids")
_READ_AS_IS = tuple(
    name
    for name in VmSample.__struct_fields__
    if name in VmReading.__struct_fields__ and name != "state"
)


def read(raw: bytes, *, subject: str) -> HostFrame | Garbled:
    """A frame, if the bytes are one and it speaks for the host whose subject it came on."""
    try:
        frame = _frames.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return Garbled(reason=str(error))
    if subject.split(".")[-2:] != [frame.site, frame.host]:
        return Garbled(reason=f"speaks for {frame.site}/{frame.host}, which is not its subject's")
    uneven = [
        name
        for name in _COLUMNS
        if (column := getattr(frame.vms, name)) and len(column) != len(frame.vms.ids)
    ]
    if uneven:
        return Garbled(reason=f"columns of another length than ids: {', '.join(uneven)}")
    return frame


def take(before: HostNewest | None, frame: HostFrame, *, now_s: float) -> HostNewest | Stale:
    """What is newest after a frame. Only a frame that is older by clock and by count is stale: a host
    whose agent restarted counts anew, and one whose clock was set back goes on counting."""
    at = _in_utc(frame.at)
    if before is not None and at <= before.at and frame.sequence <= before.sequence:
        return Stale()
    guests = _guests_after(before, frame)
    former = before.columns if before is not None else VmColumns()
    return HostNewest(
        host=frame.host,
        site=frame.site,
        at=at,
        sequence=frame.sequence,
        interval_s=frame.interval_s,
        sample=frame.sample,
        heard_s=now_s,
        columns=frame.vms,
        guests=guests,
        vms=FrameVms(
            columns=frame.vms,
            guests=guests,
            former=former,
            elapsed_s=(at - before.at).total_seconds() if before is not None else 0.0,
        ),
    )


def _guests_after(before: HostNewest | None, frame: HostFrame) -> dict[str, GuestSample]:
    """What a guest said holds until it says something else, as long as the VM is told of."""
    told = {guest.vm: guest for guest in frame.guests}
    if before is None or not before.guests:
        return told
    held = before.guests
    return {id: held[id] for id in frame.vms.ids if id in held} | told


def is_stale(newest: HostNewest, *, now_s: float, stale_s: float) -> bool:
    return now_s - newest.heard_s > stale_s


def host_reading(newest: HostNewest) -> HostReading:
    return HostReading(
        host=newest.host,
        site=newest.site,
        at=newest.at,
        interval_s=newest.interval_s,
        sample=newest.sample,
        vms=len(newest.vms),
    )


def vm_reading(host: HostNewest, vm: str) -> VmReading:
    newest = host.vms[vm]
    as_is: dict[str, Any] = {name: getattr(newest.sample, name) for name in _READ_AS_IS}
    return VmReading(
        vm=vm,
        host=host.host,
        at=host.at,
        state=newest.sample.state or "",
        cpu_busy=newest.cpu_busy,
        cpu_steal=newest.cpu_steal,
        guest=newest.guest,
        **as_is,
    )


def _in_utc(time: datetime) -> datetime:
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
