"""What an isolated host's libvirtd reads, and where its cgroups go."""

from __future__ import annotations

from pathlib import Path

from deploy.lab.cgroups import Hierarchy, directory, hierarchies
from deploy.lab.configuration import hosts_file, nat_network, render

HYBRID_MOUNTS = """\
29 22 0:25 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
30 29 0:26 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpuacct,cpu
31 29 0:27 / /sys/fs/cgroup/systemd rw,relatime shared:9 - cgroup cgroup rw,xattr,name=systemd
32 29 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
"""
HYBRID_MEMBERSHIP = """\
2:cpu,cpuacct:/jobs/7
1:name=systemd:/
0::/
"""


def test_settings_are_written_in_libvirts_own_format() -> None:
    text = render(
        {"user": "root", "max_core": 0, "namespaces": [], "acl": ["/dev/null", "/dev/kvm"]}
    )

    assert text == (
        'user = "root"\nmax_core = 0\nnamespaces = [  ]\nacl = [ "/dev/null", "/dev/kvm" ]\n'
    )


def test_each_host_has_a_subnet_of_its_own() -> None:
    assert nat_network(2) == (
        '<network><name>default</name><forward mode="nat" />'
        '<bridge name="virbr0" stp="on" delay="0" />'
        '<ip address="192.168.122.1" netmask="255.255.255.0"><dhcp>'
        '<range start="192.168.122.2" end="192.168.122.254" /></dhcp></ip></network>'
    )


def test_every_host_can_resolve_every_other() -> None:
    lines = hosts_file().splitlines()

    assert lines[:3] == ["127.0.0.1 localhost", "10.77.0.1 h1", "10.77.0.2 h2"]
    assert len(lines) == 100


def test_hierarchies_of_both_versions_are_found_with_the_callers_place_in_each() -> None:
    assert hierarchies(HYBRID_MOUNTS, HYBRID_MEMBERSHIP) == [
        Hierarchy(
            mount_point="/sys/fs/cgroup/cpu",
            unified=False,
            options="cpu,cpuacct",
            current="/jobs/7",
        ),
        Hierarchy(
            mount_point="/sys/fs/cgroup/systemd",
            unified=False,
            options="none,name=systemd",
            current="/",
        ),
        Hierarchy(mount_point="/sys/fs/cgroup/unified", unified=True, options="", current="/"),
    ]


def test_version_two_alone_is_one_hierarchy() -> None:
    mounts = "29 22 0:25 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"

    assert hierarchies(mounts, "0::/user.slice/session-1.scope\n") == [
        Hierarchy(
            mount_point="/sys/fs/cgroup",
            unified=True,
            options="",
            current="/user.slice/session-1.scope",
        )
    ]


def test_a_hosts_cgroup_lies_below_the_callers(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    below = Hierarchy(mount_point=str(tmp_path), unified=True, options="", current="/jobs")
    out_of_sight = Hierarchy(mount_point=str(tmp_path), unified=True, options="", current="/../x")

    assert directory(below, "h1") == tmp_path / "jobs" / "h1"
    assert directory(out_of_sight, "h1") == tmp_path / "h1"
