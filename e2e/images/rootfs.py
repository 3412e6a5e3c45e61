"""The base of both images: the running interpreter with the shared libraries it needs, and a small userland.

Copied from this machine, so it is binary compatible with the environment the tests run in, and takes a second.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from e2e.images.cache import make_folder
from e2e.images.layout import HOME, PYTHON, STDLIB, USER_ID
from e2e.images.packages import base_interpreter
from e2e.images.tools import BuildError, find_tool, run

# parts of the standard library that a server never imports
DROPPED_STDLIB = frozenset(
    {"__pycache__", "dist-packages", "ensurepip", "idlelib", "lib2to3", "site-packages", "test", "tests", "tkinter"}
    | {"turtledemo"}
)
# wheels are linked against these whatever the interpreter needs; glibc 2.34 and later keep some only as empty shells
WHEEL_LIBRARIES = (
    *("libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "librt.so.1", "libstdc++.so.6", "libutil.so.1"),
    *("libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2"),
)
APPLETS = ("cat", "env", "kill", "ls", "nslookup", "ps", "sh", "sleep", "wget")
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
FILES = {
    "etc/passwd": f"root:x:0:0::/root:/bin/sh\nnonroot:x:{USER_ID}:{USER_ID}::/tmp:/bin/sh\n",
    "etc/group": f"root:x:0:\nnonroot:x:{USER_ID}:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    f"{HOME}/pyvenv.cfg": f"home = /usr/local/bin\nversion = {sys.version.split()[0]}\n",
}
LINKS = {
    "bin": "usr/bin",
    "lib": "usr/lib",
    "lib64": "usr/lib64",
    "sbin": "usr/sbin",
    "usr/local/bin/python3": PYTHON,
    f"{HOME}/bin/{PYTHON}": f"/usr/local/bin/{PYTHON}",
    f"{HOME}/bin/python3": PYTHON,
    f"{HOME}/bin/python": PYTHON,
    **{f"usr/bin/{applet}": "busybox" for applet in APPLETS},
}
FOLDERS = ("dev", "models", "proc", "root", "run", "sys", "tmp")


@dataclass(frozen=True)
class Rootfs:
    """A folder to lie at the root of the image, and the key of its content."""

    folder: Path
    key: str


def base_rootfs(cache: Path) -> Rootfs:
    """Return the base, made anew when one of the files it copies changed."""
    plan = plan_files()
    digest = hashlib.sha256(Path(__file__).read_bytes() + repr((FILES, LINKS, FOLDERS)).encode())
    for target, source in sorted(plan.items()):
        status = source.stat()
        digest.update(f"{target}\0{source}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    key = f"rootfs-{digest.hexdigest()[:24]}"
    return Rootfs(make_folder(cache / "rootfs" / key, lambda folder: _fill(folder, plan)), key)


def plan_files() -> dict[str, Path]:
    """What is copied: path in the image -> file on this machine."""
    interpreter = Path(base_interpreter())
    stdlib = Path(sysconfig.get_path("stdlib"))
    plan = {f"usr/local/bin/{PYTHON}": interpreter}
    plan |= {f"{STDLIB}/{path.relative_to(stdlib)}": path for path in walk_stdlib(stdlib)}
    modules = Path(sysconfig.get_config_var("DESTSHARED") or stdlib / "lib-dynload")
    if modules.is_dir():
        plan |= {f"{STDLIB}/lib-dynload/{path.name}": path for path in modules.glob("*.so")}
    objects = [interpreter, *(path for path in plan.values() if path.suffix == ".so")]
    for library in linked_libraries(objects) | named_libraries(WHEEL_LIBRARIES):
        plan[library_target(library)] = library
    busybox = find_tool("busybox")
    if busybox is None or linked_libraries([Path(busybox)]):
        raise BuildError("images need a static busybox; install with: apt-get install -y busybox-static")
    plan["usr/bin/busybox"] = Path(busybox)
    certificates = ssl.get_default_verify_paths().cafile
    if certificates is None:
        raise BuildError("images need CA certificates; install with: apt-get install -y ca-certificates")
    plan[CERTIFICATES] = Path(certificates)
    return plan


def walk_stdlib(stdlib: Path) -> Iterator[Path]:
    """The files of the standard library that go into the image. Links whose target is gone are left out."""
    for folder, names, files in os.walk(stdlib, followlinks=False):
        top = Path(folder) == stdlib
        names[:] = [n for n in names if n not in DROPPED_STDLIB and not (top and n.startswith(("config-", "lib-dyn")))]
        for name in files:
            path = Path(folder) / name
            if path.is_file() and path.suffix not in (".a", ".pyc") and name != "sitecustomize.py":
                yield path


def linked_libraries(objects: Iterable[Path]) -> set[Path]:
    """The shared libraries that the loader would load for `objects`, the loader itself included."""
    result = subprocess.run(["ldd", *map(str, objects)], capture_output=True, text=True, check=False)
    return parse_ldd(result.stdout)


def parse_ldd(output: str) -> set[Path]:
    """Absolute paths in the output of ldd. Raises BuildError for a library that was not found."""
    missing = sorted(set(re.findall(r"^\s*(\S+) => not found", output, re.MULTILINE)))
    if missing:
        raise BuildError(f"this Python needs shared libraries that the machine lacks: {', '.join(missing)}")
    return {Path(path) for path in re.findall(r"^\s+(?:\S+ => )?(/\S+) \(0x", output, re.MULTILINE)}


def named_libraries(names: Iterable[str]) -> set[Path]:
    """Find shared libraries by soname, for this machine's architecture. Raises BuildError when one is missing."""
    tool = find_tool("ldconfig")
    if tool is None:
        raise BuildError("images need ldconfig; install with: apt-get install -y libc-bin")
    listed = re.findall(r"^\s+(\S+) \(([^)]*)\) => (\S+)$", run([tool, "-p"]), re.MULTILINE)
    known = {name: Path(path) for name, kind, path in reversed(listed) if "x32" not in kind and kind != "libc6"}
    missing = sorted(set(names) - set(known))
    if missing:
        raise BuildError(f"images need the shared libraries {', '.join(missing)}, which ldconfig does not list")
    return {known[name] for name in names}


def library_target(library: Path) -> str:
    """Where a library lies in the image: the system's at their place, in /usr; others in /usr/local/lib."""
    path = re.sub(r"^/(lib\w*)/", r"/usr/\1/", str(library))
    return path.lstrip("/") if path.startswith("/usr/lib") else f"usr/local/lib/{library.name}"


def _fill(folder: Path, plan: Mapping[str, Path]) -> None:
    for name in ("usr/bin", "usr/lib", "usr/lib64", "usr/sbin"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for target, source in plan.items():
        path = folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, path)
        path.chmod(0o755 if os.access(source, os.X_OK) else 0o644)
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    links = {**LINKS, **_certificate_link()}
    for name, link in links.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(link)
    for name in FOLDERS:
        (folder / name).mkdir(exist_ok=True)
    (folder / "tmp").chmod(0o1777)
    _index_libraries(folder)
    stdlib = folder / STDLIB
    options = ["-q", "-j2", "--invalidation-mode", "unchecked-hash", "-s", str(folder), "-p", "/"]
    run([base_interpreter(), "-I", "-m", "compileall", *options, str(stdlib)])


def _certificate_link() -> dict[str, str]:
    """OpenSSL looks for the certificates where it was built to look."""
    path = ssl.get_default_verify_paths().openssl_cafile.lstrip("/")
    return {} if path == CERTIFICATES else {path: f"/{CERTIFICATES}"}


def _index_libraries(folder: Path) -> None:
    places = sorted({f"/{path.parent.relative_to(folder)}" for path in folder.glob("usr/**/lib*.so*")})
    (folder / "etc/ld.so.conf").write_text("".join(f"{place}\n" for place in places if STDLIB not in place))
    tool = find_tool("ldconfig")
    assert tool is not None, "checked when the files were planned"
    with tempfile.TemporaryDirectory() as state:
        run([tool, "-X", "-r", str(folder), "-C", "/etc/ld.so.cache"], {"TMPDIR": state})
    shutil.rmtree(folder / "var", ignore_errors=True)
