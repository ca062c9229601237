"""What the guest agent costs its guest: the very file in a process of its own, and a host that listens.

Memory is what is resident after a minute's worth of frames. CPU is measured at the agent's fastest pace
and told for one frame each five seconds, so that the bench need not last for minutes.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.report import Row, Target, row

AGENT = Path(__file__).parents[1] / "guest" / "vireo_guest_agent.py"
INTERVAL_S = 0.5
"""The shortest that it takes."""
TICK_S = 5.0
FRAMES = 24
RUNS = 3
MIB = 1 << 20


def run(directory: Path) -> Iterator[Row]:
    measured = [_measure(directory / f"{index}.sock") for index in range(RUNS)]
    yield row(
        "guest agent: resident memory",
        [mib for mib, _ in measured],
        "MiB",
        target=Target("at most", 12),
        note=f"Python {sys.version_info.major}.{sys.version_info.minor}",
    )
    yield row(
        "guest agent: CPU at a 5 s tick",
        [percent for _, percent in measured],
        "% of a core",
        target=Target("at most", 0.2),
        note="of its own time, user and system",
    )


def _measure(path: Path) -> tuple[float, float]:
    """Resident memory in MiB, and the share of a core in percent."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(1)
        command = ["-I", "-S", str(AGENT), "--connect", f"unix:{path}"]
        agent = subprocess.Popen(
            [sys.executable, *command, "--interval", str(INTERVAL_S)], stderr=subprocess.DEVNULL
        )
        try:
            line, _ = listener.accept()
            with line:
                _frames(line, 1)
                before_s = _cpu_s(agent.pid)
                _frames(line, FRAMES)
                # The last frame is on its way before the time for it is booked.
                time.sleep(INTERVAL_S / 2)
                spent_s = _cpu_s(agent.pid) - before_s
                return _resident(agent.pid) / MIB, 100 * spent_s / FRAMES / TICK_S
        finally:
            agent.kill()
            agent.wait()


def _frames(line: socket.socket, count: int) -> None:
    for _ in range(count):
        length = int.from_bytes(_exactly(line, 4), "big")
        _exactly(line, length)


def _exactly(line: socket.socket, count: int) -> bytes:
    data = line.recv(count, socket.MSG_WAITALL)
    if len(data) < count:
        raise RuntimeError("the guest agent has hung up")
    return data


def _cpu_s(pid: int) -> float:
    """To the nanosecond where the kernel says so; the clock's ticks are coarser than one frame."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
