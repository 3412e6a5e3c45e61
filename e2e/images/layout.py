"""Where things lie in both images, the Dockerfiles included, and how they start."""

from __future__ import annotations

import sys
from pathlib import Path

from e2e.images.oci import Config

ROOT = Path(__file__).resolve().parents[2]
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
HOME = "opt/tandem"  # a virtual environment: Debian's Python and python.org's look there in the same way
SITE_PACKAGES = f"{HOME}/lib/{PYTHON}/site-packages"
STDLIB = f"usr/local/lib/{PYTHON}"
MODEL = "models/tiny"
USER_ID = 65532

RUNTIME_IMAGE = "localhost/tandem-runtime:dev"
OPERATOR_IMAGE = "localhost/tandem-operator:dev"

ENVIRONMENT = {
    "PATH": f"/{HOME}/bin:/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONUNBUFFERED": "1",  # logs appear when they are written
    "PYTHONDONTWRITEBYTECODE": "1",  # the root is read-only
}
ENTRYPOINTS = {
    RUNTIME_IMAGE: ("tandem-runtime",),
    OPERATOR_IMAGE: ("python3", "-m", "tandem_operator"),
}


def image_config(name: str) -> Config:
    """The config of one of our two images."""
    env = tuple(f"{key}={value}" for key, value in ENVIRONMENT.items())
    return Config(entrypoint=ENTRYPOINTS[name], env=env, user=f"{USER_ID}:{USER_ID}", working_dir="/tmp")
