"""`python -m deploy.guest`: build the tiny guest unless it is there already."""

import argparse
import sys
from pathlib import Path

from deploy.guest.build import default_image_dir, ensure_guest
from deploy.guest.packages import PackageError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.guest", description=__doc__)
    parser.add_argument("--out", type=Path, default=default_image_dir(), help="image directory")
    parser.add_argument("--force", action="store_true", help="build even if nothing changed")
    arguments = parser.parse_args()
    try:
        image = ensure_guest(arguments.out, force=arguments.force)
    except PackageError as error:
        print(f"tiny guest: {error}", file=sys.stderr)
        return 1
    print(image.disk)
    return 0


sys.exit(main())
