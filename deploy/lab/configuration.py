"""The files that a host's libvirtd reads. Pure: numbers and names in, text out."""

from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

MAX_HOSTS = 99

Setting = str | int | Sequence[str]

LIBVIRTD: Mapping[str, Setting] = {
    "unix_sock_group": "root",
    "unix_sock_ro_perms": "0700",
    "unix_sock_rw_perms": "0700",
    "auth_unix_ro": "none",
    "auth_unix_rw": "none",
    "log_level": 3,
    "log_outputs": "3:file:/var/log/libvirt/libvirtd.log",
}

QEMU: Mapping[str, Setting] = {
    # Log files are written by libvirtd itself, so no virtlogd has to run.
    "stdio_handler": "file",
    "security_driver": "none",
    # The host is a mount namespace already, and its devices are the machine's.
    "namespaces": [],
    # Disks belong to whoever made them outside; their owners stay as they are, and no owner is
    # remembered on a base image that several hosts share.
    "user": "root",
    "group": "root",
    "dynamic_ownership": 0,
    "remember_owner": 0,
    "max_core": 0,
}

# libvirt 10.4 and newer would take nftables, and then leaves a DHCP answer's checksum to traffic
# control, which not every kernel has; guests drop an answer without one. Older ones don't read it.
NETWORK: Mapping[str, Setting] = {"firewall_backend": "iptables"}


def host_name(number: int) -> str:
    return f"h{number}"


def host_address(number: int) -> str:
    """On the bridge that joins the hosts."""
    return f"10.77.0.{number}"


def host_mac(number: int) -> str:
    return f"02:77:00:00:00:{number:02x}"


def render(settings: Mapping[str, Setting]) -> str:
    """libvirt's own format: `key = "text" | 1 | [ "text", ... ]`, one a line."""
    return "".join(f"{key} = {_literal(value)}\n" for key, value in settings.items())


def _literal(value: Setting) -> str:
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return f'"{value}"'
    return "[ " + ", ".join(f'"{item}"' for item in value) + " ]"


def hosts_file() -> str:
    """Every host that there may be: libvirt resolves its own name, and DNS would cost seconds."""
    numbers = range(1, MAX_HOSTS + 1)
    lines = [f"{host_address(number)} {host_name(number)}" for number in numbers]
    return "\n".join(["127.0.0.1 localhost", *lines]) + "\n"


def nat_network(number: int) -> str:
    """libvirt's `default` network with a subnet of the host's own: 192.168.(120+n).0/24."""
    subnet = f"192.168.{120 + number}"
    network = ElementTree.Element("network")
    ElementTree.SubElement(network, "name").text = "default"
    ElementTree.SubElement(network, "forward", mode="nat")
    # Without spanning tree's delay a guest's first DHCP request is heard.
    ElementTree.SubElement(network, "bridge", name="virbr0", stp="on", delay="0")
    ip = ElementTree.SubElement(network, "ip", address=f"{subnet}.1", netmask="255.255.255.0")
    dhcp = ElementTree.SubElement(ip, "dhcp")
    ElementTree.SubElement(dhcp, "range", start=f"{subnet}.2", end=f"{subnet}.254")
    return ElementTree.tostring(network, encoding="unicode")
