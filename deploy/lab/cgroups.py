"""Where a host's cgroups go: below the cgroups of whoever brings it up, in every hierarchy.

So a limit on the caller also holds for its hosts. Both versions of cgroups, and both at once, work.
"""

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec


class Hierarchy(msgspec.Struct, frozen=True):
    """One mounted cgroup hierarchy, and the caller's place in it."""

    mount_point: str
    unified: bool
    # For mount(8) in another namespace; empty for the unified hierarchy.
    options: str
    current: str


def hierarchies(mountinfo: str, membership: str) -> list[Hierarchy]:
    """From the texts of /proc/self/mountinfo and /proc/self/cgroup (proc(5), cgroups(7))."""
    places: dict[frozenset[str], str] = {}
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        places[frozenset(controllers.split(",")) - {""}] = path
    found = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, super_options = right.split(" ", 2)
        if kind not in ("cgroup", "cgroup2"):
            continue
        mounted = frozenset(super_options.split(","))
        wanted = frozenset[str]() if kind == "cgroup2" else _controllers(places, mounted)
        if wanted in places and (wanted or kind == "cgroup2"):
            found.append(
                Hierarchy(
                    mount_point=left.split(" ")[4],
                    unified=kind == "cgroup2",
                    options=_mount_options(wanted),
                    current=places[wanted],
                )
            )
    return found


def _controllers(places: dict[frozenset[str], str], mounted: frozenset[str]) -> frozenset[str]:
    return next((names for names in places if names and names <= mounted), frozenset())


def _mount_options(controllers: Iterable[str]) -> str:
    names = sorted(controllers)
    # A named hierarchy (systemd's own) has no controllers.
    return ",".join(["none", *names] if any(n.startswith("name=") for n in names) else names)


def directory(hierarchy: Hierarchy, name: str) -> Path:
    """The cgroup `name` below the caller's, or at the top where the caller's is out of sight."""
    top = Path(hierarchy.mount_point)
    below = top / hierarchy.current.lstrip("/")
    return (below if below.is_dir() else top) / name


def create(path: Path) -> None:
    path.mkdir(exist_ok=True)
    # A new cpuset of version 1 is empty, and nothing can run in it.
    for setting in ("cpuset.cpus", "cpuset.mems"):
        inherited = path.parent / setting
        if inherited.exists() and not (path / setting).read_text().strip():
            (path / setting).write_text(inherited.read_text())


def remove(path: Path, wait_until: Callable[[Callable[[], bool]], bool]) -> bool:
    """Remove a cgroup and all below it once their processes are gone. Whether it is gone."""

    def gone() -> bool:
        for folder, _, _ in os.walk(path, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        return not path.exists()

    return wait_until(gone)
