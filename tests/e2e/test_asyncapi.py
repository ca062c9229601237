"""The AsyncAPI document under the official parser, the one that the AsyncAPI CLI validates with."""

from __future__ import annotations

import subprocess
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "schemas" / "generated" / "asyncapi.yaml"


def validate(folder: Path, document: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["node", "asyncapi.js", str(document)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_asyncapi_document_is_valid(npm_packages: Path) -> None:
    result = validate(npm_packages, DOCUMENT)
    assert (result.returncode, result.stdout) == (0, "")


def test_a_broken_asyncapi_document_is_told_from_it(npm_packages: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text(DOCUMENT.read_text().replace("action: receive", "action: ponder"))
    assert validate(npm_packages, broken).returncode == 1
