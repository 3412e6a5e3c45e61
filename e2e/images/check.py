"""Proves that the images work without a cluster: unpacks their layers and runs programs in them as a pod would,
as user 65532 in a mount namespace with a read-only root."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import tempfile
from pathlib import Path

from e2e.images import oci
from e2e.images.build import assemble_images
from e2e.images.cache import cache_folder, drop_unused, make_folder
from e2e.images.layout import ENTRYPOINTS, ENVIRONMENT, MODEL, RUNTIME_IMAGE, USER_ID
from e2e.images.tools import SYSTEM_PATH, BuildError, find_tool, run

HERE = Path(__file__).parent
TIMEOUT_SECONDS = 300  # a torch import takes half a minute when both cores are busy
UNPACKED_KEEP_SECONDS = 24 * 3600.0  # a day of work with checks in seconds is worth a gigabyte, a week is not
# overlayfs without an upper folder is read-only; everything lives in the namespace and ends with it
ENTER = """
set -e
mount --make-rprivate /
mount -t overlay -o "ro,lowerdir=$LAYERS" overlay "$ROOT"
mount -t proc proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
mount -t tmpfs -o mode=1777 tmpfs "$ROOT/tmp"
exec chroot --userspec={user} "$ROOT" /usr/bin/env -i {environment} "$@"
"""


def check_images(which: str = "all", agreed: bool = False, cache: Path | None = None) -> None:
    """Build and check images. One that passed is not unpacked again. Raises BuildError with what failed."""
    folder = cache if cache is not None else cache_folder()
    if os.geteuid() != 0:
        raise BuildError("check runs programs inside the images, which needs root; building does not")
    for name, image in assemble_images(which, agreed, cache).items():
        passed = folder / "checked" / hashlib.sha256(f"{image.digest}\0{_own_key()}".encode()).hexdigest()
        if passed.is_file():
            print(f"{name}: checked before")
            continue
        layers = [unpack(blob, folder) for blob in image.blobs if blob.digest in image.layers]
        for command, script in programs(name):
            print(f"{name}: {run_inside(layers, command, script)}", flush=True)
        passed.parent.mkdir(exist_ok=True)
        passed.touch()
    drop_unused(folder / "unpacked", UNPACKED_KEEP_SECONDS)
    drop_unused(folder / "checked")


def programs(name: str) -> list[tuple[list[str], str]]:
    """What must run in an image: commands and their stdin."""
    probe = (HERE / "probe.py").read_text()
    help_of = sorted({("tandem-runtime", "--help"), ("tandem", "--help"), (*ENTRYPOINTS[name], "--help")})
    found: list[tuple[list[str], str]] = [(["python3", "-", Path(MODEL).name], probe)]
    if name == RUNTIME_IMAGE:
        found = [(["python3", "-", f"/{MODEL}"], probe), (["python3", "-"], (HERE / "selftest.py").read_text())]
    return [*found, *((list(command), "") for command in help_of), (["sh", "-c", "echo shell works"], "")]


def unpack(blob: oci.Blob, cache: Path) -> Path:
    """Unpack a layer as a node does; kept for the next check."""

    def fill(folder: Path) -> None:
        run(["tar", "-x", "-p", "--numeric-owner", "-C", str(folder), "-f", str(blob.path)])

    return make_folder(cache / "unpacked" / blob.digest.partition(":")[2][:24], fill)


def run_inside(layers: list[Path], command: list[str], stdin: str = "") -> str:
    """Run a command in the stacked layers, bottom first; its last line of output. Raises BuildError when it fails."""
    environment = shlex.join(f"{key}={value}" for key, value in {**ENVIRONMENT, "HOME": "/tmp"}.items())
    script = ENTER.format(user=f"{USER_ID}:{USER_ID}", environment=environment)
    unshare = find_tool("unshare")
    if unshare is None:
        raise BuildError("check needs unshare; install with: apt-get install -y util-linux")
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o755)
        variables = {"ROOT": root, "LAYERS": ":".join(map(str, reversed(layers))), "PATH": SYSTEM_PATH}
        namespace = [unshare, "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh"]
        try:
            result = subprocess.run(
                [*namespace, *command],
                env=variables,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise BuildError(f"{shlex.join(command)} in the image did not end in {TIMEOUT_SECONDS} s") from error
    shown = shlex.join(command)
    if result.returncode != 0:
        raise BuildError(
            f"{shown} in the image ended with {result.returncode}:\n{(result.stderr or result.stdout)[-3000:]}"
        )
    lines = result.stdout.strip().splitlines()
    return f"{shown}: {lines[-1] if lines else 'ok'}"


def _own_key() -> str:
    return "".join(
        hashlib.sha256((HERE / name).read_bytes()).hexdigest() for name in ("check.py", "probe.py", "selftest.py")
    )
