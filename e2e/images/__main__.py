"""python -m e2e.images build|check [runtime|operator|all]"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from e2e.images.build import NAMES, build_images, write_archives
from e2e.images.check import check_images
from e2e.images.tools import BuildError


def main() -> int:
    """Exit code 0, or 1 with a sentence on stderr."""
    parser = argparse.ArgumentParser(prog="python -m e2e.images", description="Container images without Docker.")
    parser.add_argument(
        "command", choices=["build", "check"], help="build the archives; or build and run what is in them"
    )
    parser.add_argument("which", nargs="?", default="all", choices=sorted(NAMES))
    parser.add_argument("--yes", action="store_true", help="install missing Debian packages (also with CI=true)")
    parser.add_argument("--archives", type=Path, metavar="FOLDER", help="also write them there as whole archives")
    arguments = parser.parse_args()
    start_seconds = time.monotonic()
    try:
        if arguments.command == "check":
            check_images(arguments.which, arguments.yes)
        else:
            built = build_images(arguments.which, arguments.yes)
            for name, path in (write_archives(built, arguments.archives) if arguments.archives else built).items():
                print(f"{name}  {path}")
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.command} {arguments.which}: {time.monotonic() - start_seconds:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
