"""The shell of `vireo init`: read the passwords that are there, make those that are not, write."""

from __future__ import annotations

from pathlib import Path

from vireo.deployment.plan import DeploymentOptions, files, secret_names
from vireo.standalone.credentials import ensure_passwords, write_private


def write(directory: Path, options: DeploymentOptions) -> list[Path]:
    """Write every file under `directory`, readable by its owner alone; returns their paths.

    Passwords that `directory/passwords` holds are kept, so that a host can be added later by running
    it again with one more name.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    passwords = ensure_passwords(directory / "passwords", secret_names(options))
    written = {directory / path: text for path, text in files(options, passwords).items()}
    for path, text in written.items():
        write_private(path, text)
    return sorted(written)
