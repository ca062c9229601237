"""`python -m schemas`: write the generated documents to `schemas/generated/`."""

from __future__ import annotations

import sys
from pathlib import Path

from schemas.documents import documents

GENERATED = Path(__file__).parent / "generated"


def main() -> None:
    written = documents()
    stale = {path for path in GENERATED.rglob("*") if path.is_file()} - {
        GENERATED / name for name in written
    }
    for path in sorted(stale):
        path.unlink()
    for name, text in written.items():
        path = GENERATED / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{len(written)} documents in {GENERATED}\n")


if __name__ == "__main__":
    main()
