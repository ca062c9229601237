"""Fetch Debian and Ubuntu packages with apt, unpacked into a folder and never installed.

No root is needed. When the machine's package lists are missing or out of date, lists of one's own
are fetched into the work folder and the machine's stay as they are.
"""

import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

_DEPENDS = re.compile(r"^ *\|?(?:Pre)?Depends: ([^<\s]+)$", re.MULTILINE)
_TIMEOUT_S = 600


class PackageError(Exception):
    """A package cannot be had; the text says which and what apt said."""


class Apt:
    """apt-get and apt-cache over the machine's lists, or over lists of its own."""

    def __init__(self, work_dir: Path) -> None:
        self._work_dir = work_dir
        self._options = ["-o", "APT::Sandbox::User=", "-o", "Debug::NoLocking=1"]
        self._versions: dict[str, str] = {}

    @property
    def versions(self) -> dict[str, str]:
        """Name to version of every package unpacked so far."""
        return dict(self._versions)

    def refresh(self) -> None:
        """From now on use package lists fetched just now into the work folder."""
        lists = self._work_dir / "apt-lists"
        cache = self._work_dir / "apt-cache"
        for folder in (lists / "partial", cache / "archives" / "partial"):
            folder.mkdir(parents=True, exist_ok=True)
        self._options += ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={cache}"]
        self._run("apt-get", "update", "-q")

    def knows(self, package: str) -> bool:
        shown = self._try("apt-cache", "show", "--no-all-versions", package)
        return shown.returncode == 0 and bool(shown.stdout.strip())

    def dependencies(self, packages: Sequence[str]) -> list[str]:
        """Names that the packages depend on directly, real packages only, sorted."""
        listed = self._run("apt-cache", "depends", "--important", *packages)
        return sorted({name.split(":")[0] for name in _DEPENDS.findall(listed)})

    def unpack(self, packages: Sequence[str], root: Path) -> None:
        """Fetch the packages and unpack them into `root`, one over the other."""
        folder = self._work_dir / "debs"
        folder.mkdir(parents=True, exist_ok=True)
        self._run("apt-get", "download", "-q", *packages, cwd=folder)
        for archive in _archives(folder, packages):
            self._run("dpkg-deb", "-x", str(archive), str(root))
            name, version, _ = archive.name.split("_")
            self._versions[name] = version.replace("%3a", ":")

    def _run(self, *command: str, cwd: Path | None = None) -> str:
        done = self._try(*command, cwd=cwd)
        if done.returncode != 0:
            raise PackageError(f"{' '.join(command)} failed: {done.stderr.strip()}")
        return done.stdout

    def _try(self, *command: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        program, *arguments = command
        options = self._options if program.startswith("apt-") else []
        try:
            return subprocess.run(
                [program, *options, *arguments],
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except FileNotFoundError:
            raise PackageError(f"{program} is not on this machine") from None


def _archives(folder: Path, packages: Iterable[str]) -> list[Path]:
    found = [(name, sorted(folder.glob(f"{name}_*.deb"))) for name in packages]
    missing = [name for name, archives in found if not archives]
    if missing:
        raise PackageError("apt fetched no " + ", ".join(missing))
    return [archives[-1] for _, archives in found]
