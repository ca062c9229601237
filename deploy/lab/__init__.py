"""Isolated libvirt hosts on one machine, for the demo, for `./dev up --hosts N` and for tests.

Each host h1..hN has namespaces, a cgroup, a libvirtd and a NAT network of its own; a bridge in one
more network namespace joins them. The machine's own libvirt is never touched.

| module | what lives there |
| --- | --- |
| `hosts` | `Lab` and `Host`: bring up, cut the power, restart, take down |
| `configuration` | the files that a host's libvirtd reads; pure |
| `cgroups` | where a host's cgroups go, from what /proc says |
| `init` | PID 1 of a host; a script of its own, run by path, standard library alone |

Needs root, libvirtd, QEMU, iproute2 and util-linux; no systemd.
"""

from deploy.lab.hosts import Host, Lab, LabError, why_hosts_cannot_run

__all__ = ["Host", "Lab", "LabError", "why_hosts_cannot_run"]
