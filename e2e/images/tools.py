"""Programs the image builder needs from the machine: found, or asked for with the exact command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

PACKAGES = {"gcc": "gcc", "readelf": "binutils", "busybox": "busybox-static", "ldconfig": "libc-bin"}
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # ldconfig is not on a user's PATH


class BuildError(RuntimeError):
    """An image cannot be built; the message says why and what to do."""


def find_tool(name: str) -> str | None:
    """Absolute path of a program, or None."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")


def missing_packages(tools: Iterable[str] = tuple(PACKAGES)) -> list[str]:
    """Debian packages of the programs that are missing."""
    return sorted({PACKAGES[tool] for tool in tools if find_tool(tool) is None})


def may_install(environment: Mapping[str, str], user_id: int, agreed: bool) -> bool:
    """Whether packages may be installed without asking: root, and either `--yes` or CI=true."""
    return user_id == 0 and (agreed or environment.get("CI") == "true")


def ensure_tools(agreed: bool = False) -> None:
    """Install the missing packages where that is allowed. Raises BuildError with the command where it is not."""
    packages = missing_packages()
    if not packages:
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    if not may_install(os.environ, os.geteuid(), agreed) or find_tool("apt-get") is None:
        sudo = "" if os.geteuid() == 0 else "sudo "
        raise BuildError(f"images need {', '.join(packages)}; install with: {sudo}{' '.join(command)}")
    print(f"images: installing {', '.join(packages)}", file=sys.stderr)
    for step in (["apt-get", "update", "-q"], command):
        run([*step, "-o", "DPkg::Lock::Timeout=120"], {"DEBIAN_FRONTEND": "noninteractive"})


def find_uv() -> str:
    """The uv that the test environment was made with, or one on PATH."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    own = Path(base) / "tandem" / "tools" / "bin" / "uv"
    found = str(own) if own.is_file() else find_tool("uv")
    if found is None:
        raise BuildError("images need uv; make the environment with: ./tests/run env")
    return found


def run(command: list[str], environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a command and return its stdout. Raises BuildError with the end of its output when it fails."""
    result = subprocess.run(
        command, env={**os.environ, **(environment or {})}, cwd=cwd, capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        tail = (result.stderr or result.stdout).strip()[-2000:]
        raise BuildError(f"{' '.join(command[:6])} ended with {result.returncode}:\n{tail}")
    return result.stdout
