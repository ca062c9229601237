"""The scheduler's peers: `hail` and `hspace` of Ganeti, from Debian's package ganeti-htools.

Both read the cluster from a text file; its format is in htools(1). Where the package is missing, the
rows say so.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

from bench.scheduler_fleet import CPUS, DISK_GIB, MEMORY_MIB

HAIL = Path("/usr/lib/ganeti/iallocators/hail")
GROUP = "11111111-2222-3333-4444-555555555555"
RESERVE_MIB = 512
CPU_RATIO = 4.0
MISSING = "ganeti-htools is missing: apt-get install ganeti-htools"
SMALL = {"memory-size": 128, "cpu-count": 1, "disk-size": 1024}
LARGE = {"memory-size": 1 << 20, "cpu-count": 64, "disk-size": 1 << 20}
ONES = {"disk-count": 1, "nic-count": 1, "spindle-use": 1}
MANY = {"disk-count": 16, "nic-count": 8, "spindle-use": 12}


def have_hail() -> bool:
    return HAIL.exists()


def have_hspace() -> bool:
    return shutil.which("hspace") is not None


def write_cluster(path: Path, nodes: int) -> None:
    """An empty cluster of the same hosts as ours."""
    policy = f"128,1,1024,1,1,1|128,1,1024,1,1,1;1048576,64,1048576,16,8,12|plain|{CPU_RATIO}|32.0"
    groups = f"default|{GROUP}|preferred||\n"
    lines = "".join(
        f"h{number:06d}|{MEMORY_MIB}|{RESERVE_MIB}|{MEMORY_MIB - RESERVE_MIB}|{DISK_GIB << 10}|"
        f"{DISK_GIB << 10}|{CPUS}|N|{GROUP}|1||N|0|0|1.0\n"
        for number in range(nodes)
    )
    path.write_text(f"{groups}\n{lines}\n\n\n|{policy}\ndefault|{policy}\n")


def write_request(path: Path, *, cpus: int, memory_mib: int, disk_gib: int) -> None:
    """hail's request for one instance; the cluster comes from the text file."""
    disk_mib = disk_gib << 10
    policy = {
        "std": {**SMALL, **ONES},
        "minmax": [{"min": {**SMALL, **ONES}, "max": {**LARGE, **MANY}}],
        "disk-templates": ["plain"],
        "vcpu-ratio": CPU_RATIO,
        "spindle-ratio": 32.0,
    }
    group = {"name": "default", "alloc_policy": "preferred", "tags": [], "networks": []}
    request = {
        "type": "allocate",
        "name": "new",
        "memory": memory_mib,
        "vcpus": cpus,
        "disk_space_total": disk_mib,
        "disks": [{"mode": "w", "size": disk_mib}],
        "disk_template": "plain",
        "nics": [],
        "os": "x",
        "tags": [],
        "required_nodes": 1,
        "hypervisor": "kvm",
        "spindle_use": 1,
    }
    cluster = {
        "version": 2,
        "cluster_name": "bench",
        "cluster_tags": [],
        "enabled_hypervisors": ["kvm"],
        "nodegroups": {GROUP: {**group, "ipolicy": policy}},
        "nodes": {},
        "instances": {},
        "request": request,
    }
    path.write_text(json.dumps(cluster))


def hail_s(cluster: Path, request: Path) -> float:
    """Seconds from start to end of one hail that places one instance."""
    began = time.perf_counter()
    done = subprocess.run(
        [str(HAIL), "-t", str(cluster), "--no-capacity-checks", str(request)],
        capture_output=True,
        check=True,
    )
    spent = time.perf_counter() - began
    assert json.loads(done.stdout)["success"], done.stdout
    return spent


def hspace_count(cluster: Path, *, cpus: int, memory_mib: int, disk_gib: int) -> int:
    """How many instances of one size hspace puts on the cluster, without its N+1 checks."""
    done = subprocess.run(
        [
            "hspace",
            f"--text-data={cluster}",
            f"--standard-alloc={disk_gib << 10},{memory_mib},{cpus}",
            "--disk-template=plain",
            "--machine-readable",
            "--no-capacity-checks",
        ],
        capture_output=True,
        check=True,
        text=True,
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("HTS_FIN_INST_CNT=")]
    return int(found[0].partition("=")[2].strip("'"))
