#!/usr/bin/env python3
"""Vireo's guest agent: tells the host every few seconds how this machine is, over vsock.

One file, the standard library alone, Python 3.6 or later, Linux. It listens on nothing, takes no orders
but how often to speak, and runs without privileges. What this machine does not offer is left out.
The frames are described in docs/guest-frames.md.

    vireo_guest_agent.py                          # vsock to the host, port 8475
    vireo_guest_agent.py --connect unix:/run/x    # to a Unix socket
    vireo_guest_agent.py --once                   # print one frame and end
"""

import os
import socket
import struct
import sys
import time

# What is imported is resident for ever. This module of C is all that is needed of `json`; command lines are
# read by hand because argparse, like json, would bring regular expressions along.
from _json import encode_basestring_ascii, make_encoder

# Only for those who check types; at run time there is no `typing` here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

VERSION = "1.0"
FRAME_VERSION = 1
HOST_CID = 2
PORT = 8475
INTERVAL_S = 5.0
SHORTEST_S, LONGEST_S = 0.5, 3600.0
STALL_S = 10.0
RETRY_FIRST_S, RETRY_LONGEST_S = 1.0, 60.0
HEADER = struct.Struct("!I")
WISH_BYTES = 4096
FRAME_BYTES = 64 * 1024
MOST = 64
TEXT = 255
PAGE = 4096
LINE = 512
"""More than the first line of any file in /proc that is read for that alone."""
SELDOM_S = 60.0
"""How often that is looked up which hardly ever changes."""

MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
LOCAL_TYPES = frozenset(("zfs", "btrfs", "bcachefs"))
"""File systems of this machine whose source is no path below /dev. Remote ones are never asked: a server
that is gone would hang whoever asks."""
SECTOR_BYTES = 512
RESERVED_PORTS = range(1023, 511, -1)
"""Ports that only a privileged process of this machine can have: the host takes no others."""


# --- JSON ---------------------------------------------------------------------------------


ENCODED = make_encoder(None, str, encode_basestring_ascii, None, ":", ",", False, False, False)


def to_json(value: "Any") -> str:
    return "".join(ENCODED(value, 0))


def number_in(text: str, name: str) -> "float | None":
    """A number in a flat JSON object, which is all that a wish of the host's is."""
    _, _, rest = text.partition('"' + name + '"')
    value = rest.lstrip()[1:].lstrip() if rest.lstrip().startswith(":") else ""
    size = next((at for at, char in enumerate(value) if char not in "+-.0123456789eE"), len(value))
    return first_number(value[:size])


# --- what this machine says ---------------------------------------------------------------


def read(path: str, most: int = FRAME_BYTES) -> str:
    return read_bytes(path, most).decode("utf-8", "replace")


def read_bytes(path: str, most: int) -> bytes:
    """What `open` would read, by half as many calls of the kernel. Nothing where there is no such file."""
    data = b""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return data
    try:
        # A table of the kernel's comes a page at a time.
        while len(data) < most:
            piece = os.read(file, min(most - len(data), PAGE))
            if not piece:
                break
            data += piece
    except OSError:
        pass
    finally:
        os.close(file)
    return data


class Kept:
    """What was looked up within the last minute and hardly ever changes. A card that is pulled, and another
    that is put in under its name, is told wrongly for so long."""

    def __init__(self) -> None:
        self.known: "dict[Any, Any]" = {}
        self.since = time.monotonic()

    def forget_old(self) -> None:
        now = time.monotonic()
        if now - self.since >= SELDOM_S:
            self.known.clear()
            self.since = now

    def look(self, ask: "Callable[[str], Any]", about: str) -> "Any":
        key = (ask, about)
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = ask(about)
        return found


def frame(root: str = "/", kept: "Kept | None" = None) -> "dict[str, Any]":
    """Everything there is to say now. What is not known is not in it."""
    kept = kept or Kept()
    kept.forget_old()
    name = os.uname()
    told = {
        "v": FRAME_VERSION,
        "agent": VERSION,
        "at": round(time.time(), 3),
        "hostname": name.nodename[:TEXT],
        "os": kept.look(os_name, root),
        "kernel": name.release[:TEXT],
        "uptime_s": first_number(read(root + "proc/uptime", LINE)),
        "cpus": kept.look(online_cpus, root),
        "cpu": cpu(read(root + "proc/stat", LINE)),
        "load": load(read(root + "proc/loadavg", LINE)),
        "memory": memory(read(root + "proc/meminfo")),
        "file_systems": file_systems(read(root + "proc/self/mounts")),
        "interfaces": interfaces(root, kept),
        "disks": disks(root, kept),
        "users": users(root),
    }
    return {key: value for key, value in told.items() if value is not None}


def encoded(told: "dict[str, Any]") -> bytes:
    """The bytes of a frame; lists go first where it would be too long for any host."""
    for dropped in ((), ("users", "disks"), ("file_systems", "interfaces")):
        for key in dropped:
            told.pop(key, None)
        body = to_json(told).encode()
        if len(body) <= FRAME_BYTES:
            break
    return HEADER.pack(len(body)) + body


def os_name(root: str) -> "str | None":
    for line in (read(root + "etc/os-release") or read(root + "usr/lib/os-release")).splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip("\"'")[:TEXT]
    return None


def first_number(text: str) -> "float | None":
    try:
        return float(text.split()[0])
    except (IndexError, ValueError):
        return None


def online_cpus(_root: str) -> "int | None":
    try:
        return os.sysconf("SC_NPROCESSORS_ONLN")
    except (OSError, ValueError):
        return None


def cpu(text: str) -> "dict[str, int] | None":
    fields = text.partition("\n")[0].split()
    if len(fields) < 5 or fields[0] != "cpu":
        return None
    return {mode: int(ticks) for mode, ticks in zip(MODES, fields[1:])}


def load(text: str) -> "list[float] | None":
    try:
        return [float(word) for word in text.split()[:3]] if text else None
    except ValueError:
        return None


def memory(text: str) -> "dict[str, int] | None":
    names = {"MemTotal": "total_kib", "MemAvailable": "available_kib"}
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if name not in names:
            continue
        words = rest.split()
        if words and words[0].isdigit():
            found[names[name]] = int(words[0])
        if len(found) == len(names):
            break
    return found or None


def file_systems(mounts: str) -> "list[dict[str, Any]]":
    """Local ones, each device once: where it was mounted first."""
    seen = set()
    found: "list[dict[str, Any]]" = []
    for line in mounts.splitlines():
        words = line.split(" ", 3)
        if len(words) < 3 or words[0] in seen or len(found) == MOST:
            continue
        source, mountpoint, type_ = words[:3]
        if not source.startswith("/dev/") and type_ not in LOCAL_TYPES:
            continue
        mountpoint = unescaped(mountpoint)
        try:
            space = os.statvfs(mountpoint)
        except OSError:
            continue
        seen.add(source)
        found.append(
            {
                "mountpoint": mountpoint[:TEXT],
                "type": type_[:TEXT],
                "total_bytes": space.f_frsize * space.f_blocks,
                "used_bytes": space.f_frsize * (space.f_blocks - space.f_bfree),
            }
        )
    return found


def unescaped(text: str) -> str:
    """`/proc/mounts` writes a space as \\040."""
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def interfaces(root: str, kept: Kept) -> "list[dict[str, Any]] | None":
    # Two lines of heads, then one a card: what it received, and from the ninth column on what it sent.
    lines = read(root + "proc/net/dev").splitlines()[2:]
    if not lines:
        return None
    known = addresses()
    found = []
    for line in sorted(line.strip() for line in lines)[:MOST]:
        name, _, counts = line.partition(":")
        words = counts.split(None, 9)
        numbers = kept.look(card, root + "sys/class/net/" + name + "/")
        if numbers is None or len(words) < 9:
            continue  # pulled just now, or not all there yet
        found.append(
            {
                "name": name[:TEXT],
                "mac": numbers[1],
                "addresses": known.get(numbers[0], [])[:MOST],
                "receive_bytes": int(words[0]),
                "transmit_bytes": int(words[8]),
            }
        )
    return found


def card(folder: str) -> "tuple[int, str] | None":
    """The number that the kernel gave it, and its hardware's address."""
    index = read(folder + "ifindex").strip()
    return (int(index), read(folder + "address").strip()[:TEXT]) if index.isdigit() else None


RTM_GETADDR, RTM_NEWADDR, NLMSG_DONE, NLMSG_ERROR = 22, 20, 3, 2
REQUEST_DUMP = 0x301
IFA_ADDRESS, IFA_LOCAL = 1, 2


def addresses() -> "dict[int, list[str]]":
    """Interface's index to its addresses, asked of the kernel by rtnetlink(7)."""
    found: "dict[int, list[str]]" = {}
    try:
        kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    except OSError:
        return found
    with kernel:
        try:
            kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 2, 0))
            kernel.send(struct.pack("=LHHLLBxxxi", 24, RTM_GETADDR, REQUEST_DUMP, 1, 0, 0, 0))
            while not take_addresses(kernel.recv(64 * 1024), found):
                pass
        except OSError:
            pass
    return found


def take_addresses(data: bytes, found: "dict[int, list[str]]") -> bool:
    """Take one answer apart; True when it was the last."""
    while len(data) >= 16:
        length, type_ = struct.unpack_from("=LH", data)
        if type_ in (NLMSG_DONE, NLMSG_ERROR) or length < 16:
            return True
        if type_ == RTM_NEWADDR:
            family, index = struct.unpack_from("=BxxxL", data, 16)
            text = address_of(family, data[24:length])
            if text:
                found.setdefault(index, []).append(text)
        data = data[(length + 3) & ~3 :]
    return False


def address_of(family: int, attributes: bytes) -> "str | None":
    """The address among an RTM_NEWADDR's attributes: a peer's stands in IFA_ADDRESS, ours in IFA_LOCAL."""
    raw = {}
    while len(attributes) >= 4:
        length, type_ = struct.unpack_from("=HH", attributes)
        if length < 4:
            break
        raw[type_] = attributes[4:length]
        attributes = attributes[(length + 3) & ~3 :]
    packed = raw.get(IFA_LOCAL) or raw.get(IFA_ADDRESS)
    try:
        return socket.inet_ntop(family, packed) if packed else None
    except (OSError, ValueError):
        return None


def disks(root: str, kept: Kept) -> "list[dict[str, Any]]":
    """Whole disks that are there, by `/proc/diskstats`; neither partitions nor what lies on top."""
    found: "list[dict[str, Any]]" = []
    for line in read(root + "proc/diskstats").splitlines():
        words = line.split(None, 10)
        if len(words) < 10 or len(found) == MOST:
            continue
        name = words[2]
        if kept.look(os.path.exists, root + "sys/block/" + name + "/device"):
            found.append(
                {
                    "name": name[:TEXT],
                    "read_bytes": int(words[5]) * SECTOR_BYTES,
                    "write_bytes": int(words[9]) * SECTOR_BYTES,
                }
            )
    return found


UTMP = struct.Struct("=h2xi32s4s32s256s")
UTMP_BYTES, USER_PROCESS = 384, 7


def users(root: str) -> "list[str] | None":
    """Who is logged in, each once; None where this machine keeps no book of it."""
    book = read_bytes(root + "run/utmp", UTMP_BYTES * 4096)
    if not book and not os.path.exists(root + "run/utmp"):
        return session_users(root)
    names = set()
    for offset in range(0, len(book) - UTMP_BYTES + 1, UTMP_BYTES):
        type_, _pid, _line, _id, name, _host = UTMP.unpack_from(book, offset)
        if type_ == USER_PROCESS:
            names.add(name.partition(b"\0")[0].decode("utf-8", "replace"))
    return sorted(names)[:MOST]


def session_users(root: str) -> "list[str] | None":
    """From systemd-logind's own book, where there is no utmp any more."""
    folder = root + "run/systemd/sessions/"
    try:
        entries = [entry for entry in os.listdir(folder) if not entry.endswith(".ref")]
    except OSError:
        return None
    names = set()
    for entry in entries:
        told = dict(line.split("=", 1) for line in read(folder + entry).splitlines() if "=" in line)
        if told.get("CLASS", "user") == "user" and "USER" in told:
            names.add(told["USER"])
    return sorted(names)[:MOST]


# --- saying it ----------------------------------------------------------------------------


def connected(address: str) -> socket.socket:
    """A connection to the host. Raises OSError."""
    if address.startswith("unix:"):
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    else:
        line = socket.socket(AF_VSOCK, socket.SOCK_STREAM)
    kind, _, rest = address.partition(":")
    try:
        line.settimeout(STALL_S)
        if kind == "unix":
            line.connect(rest)
        else:
            cid, _, port = rest.partition(":")
            take_reserved_port(line)
            vsock_call(line, "connect", (int(cid), int(port)))
    except BaseException:
        line.close()
        raise
    return line


AF_VSOCK = getattr(socket, "AF_VSOCK", 40)
ANY_CID = 0xFFFFFFFF


def take_reserved_port(line: socket.socket) -> None:
    """Shows the host that no ordinary user of this machine speaks. Without the capability
    (CAP_NET_BIND_SERVICE) it is tried without; the host then decides."""
    for port in shuffled(RESERVED_PORTS)[:8]:
        try:
            vsock_call(line, "bind", (ANY_CID, port))
        except PermissionError:
            return
        except OSError:
            continue  # somebody has it
        else:
            return


def shuffled(values: "Iterable[int]") -> "list[int]":
    return sorted(values, key=lambda _: os.urandom(4))


def vsock_call(line: socket.socket, name: str, target: "tuple[int, int]") -> None:
    if hasattr(socket, "AF_VSOCK"):
        getattr(line, name)(target)
        return
    # Python 3.6 makes such sockets and cannot name their addresses (struct sockaddr_vm, vsock(7)).
    import ctypes

    raw = struct.pack("=HHIIBxxx", AF_VSOCK, 0, target[1], target[0], 0)
    line.setblocking(True)
    done = getattr(ctypes.CDLL(None, use_errno=True), name)(line.fileno(), raw, len(raw))
    line.settimeout(STALL_S)
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Line:
    """One connection, and the interval that the host last wished for."""

    def __init__(self, line: socket.socket, interval_s: float) -> None:
        self.line = line
        self.interval_s = interval_s
        self.pending = b""
        self.kept = Kept()

    def speak(self) -> None:
        """Frame after frame until the connection fails, which raises OSError or ValueError."""
        while True:
            self.line.settimeout(STALL_S)
            self.line.sendall(encoded(frame(kept=self.kept)))
            self.listen(time.monotonic())

    def listen(self, since: float) -> None:
        """Until the next frame is due; the host may change when that is."""
        while True:
            left_s = since + self.interval_s - time.monotonic()
            if left_s <= 0:
                return
            self.line.settimeout(left_s)
            try:
                data = self.line.recv(WISH_BYTES)
            except socket.timeout:
                return
            if not data:
                raise OSError("the host has closed the connection")
            self.take(data)

    def take(self, data: bytes) -> None:
        self.pending += data
        while len(self.pending) >= HEADER.size:
            (length,) = HEADER.unpack_from(self.pending)
            if length > WISH_BYTES:
                raise ValueError("the host's frame is too long")
            if len(self.pending) < HEADER.size + length:
                return
            body = self.pending[HEADER.size : HEADER.size + length]
            self.pending = self.pending[HEADER.size + length :]
            self.obey(body.decode("utf-8", "replace"))

    def obey(self, wish: str) -> None:
        wished_s = number_in(wish, "interval_s")
        if wished_s is not None and SHORTEST_S <= wished_s <= LONGEST_S:
            self.interval_s = wished_s


def say(text: str) -> None:
    # The journal puts the time before it.
    sys.stderr.write("vireo-guest-agent: " + text + "\n")
    sys.stderr.flush()


def run(address: str, interval_s: float) -> None:
    """Keep a connection to the host and speak over it; never returns."""
    pause_s, trouble = RETRY_FIRST_S, ""
    while True:
        began = time.monotonic()
        try:
            line = connected(address)
            with line:
                say("connected to " + address)
                Line(line, interval_s).speak()
        except (OSError, ValueError) as error:
            if str(error) != trouble:
                say("{}: {}".format(address, error))
            trouble = str(error)
        if time.monotonic() - began > RETRY_LONGEST_S:
            pause_s = RETRY_FIRST_S
        # Guests that lost one host together must not come back in one moment.
        time.sleep(pause_s * (0.5 + os.urandom(1)[0] / 512))
        pause_s = min(2 * pause_s, RETRY_LONGEST_S)


USAGE = """usage: vireo_guest_agent.py [--connect vsock:CID:PORT|unix:PATH] [--interval SECONDS]
       vireo_guest_agent.py --once | --version | --help
"""


class Usage(Exception):
    """The command line is not understood."""


def is_address(text: str) -> bool:
    kind, _, rest = text.partition(":")
    if kind == "unix":
        return bool(rest)
    cid, _, port = rest.partition(":")
    return kind == "vsock" and cid.isdigit() and port.isdigit()


def options(words: "Iterable[str]") -> "tuple[str, float]":
    """The address and the interval that a command line asks for."""
    asked = {"--connect": "vsock:{}:{}".format(HOST_CID, PORT), "--interval": str(INTERVAL_S)}
    words = list(words)
    while words:
        name, has_value, value = words.pop(0).partition("=")
        if name not in asked or not (has_value or words):
            raise Usage(name)
        asked[name] = value if has_value else words.pop(0)
    if not is_address(asked["--connect"]):
        raise Usage("--connect " + asked["--connect"])
    interval_s = first_number(asked["--interval"])
    if interval_s is None or not SHORTEST_S <= interval_s <= LONGEST_S:
        raise Usage("--interval is from {} to {}".format(SHORTEST_S, LONGEST_S))
    return asked["--connect"], interval_s


def main(words: "list[str]") -> None:
    if words == ["--once"]:
        print(to_json(frame()))
    elif words == ["--version"]:
        print(VERSION)
    elif words in (["--help"], ["-h"]):
        print((__doc__ or "").strip() + "\n\n" + USAGE, end="")
    else:
        try:
            where, interval_s = options(words)
        except Usage as error:
            sys.exit("vireo-guest-agent: not understood: {}\n{}".format(error, USAGE))
        run(where, interval_s)


if __name__ == "__main__":
    main(sys.argv[1:])
