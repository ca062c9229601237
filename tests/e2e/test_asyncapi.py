"""The AsyncAPI document under the official parser."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

CHECK = Path(__file__).parents[1] / "asyncapi"
DOCUMENT = Path(__file__).parents[2] / "schemas" / "generated" / "asyncapi.yaml"


@pytest.fixture(scope="session")
def parser() -> Path:
    """A folder with the pinned parser, kept in the cache between runs."""
    npm = shutil.which("npm")
    if npm is None:
        if os.environ.get("CI"):
            pytest.fail("npm is missing, and nothing is skipped in CI")
        pytest.skip("npm is not installed: the AsyncAPI parser is an npm package")
    lock = (CHECK / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "vireo" / f"asyncapi-{hashlib.sha256(lock).hexdigest()[:12]}"
    if not (folder / "node_modules" / "@asyncapi" / "parser").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(CHECK / name, folder)
        subprocess.run(
            [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=folder,
            check=True,
            capture_output=True,
        )
    shutil.copy(CHECK / "validate.js", folder)
    return folder


def validate(folder: Path, document: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["node", "validate.js", str(document)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_asyncapi_document_is_valid(parser: Path) -> None:
    result = validate(parser, DOCUMENT)
    assert (result.returncode, result.stdout) == (0, "")


def test_a_broken_document_is_not(parser: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text(DOCUMENT.read_text().replace("action: receive", "action: ponder"))
    assert validate(parser, broken).returncode == 1
