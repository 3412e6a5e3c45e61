"""Third-party site-packages of the images: installed with uv from what pyproject.toml names, slimmed and compiled.

Two folders: `base` for the operator and the router, `torch` with what the runtime extra adds, so that both images
share the first as one layer.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import shutil
import sys
import sysconfig
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.images.cache import make_folder
from e2e.images.layout import ROOT, SITE_PACKAGES
from e2e.images.slim import add_stubs, link_tree
from e2e.images.tools import BuildError, find_uv, run

OWN_DISTRIBUTION = "tandem-serving"
# code that decides what is in the folders: a change in it makes others
SOURCES = {
    "base": ("packages.py", "slim.py"),
    "torch": ("packages.py", "slim.py", "stubs.py", "elf.py", "selftest.py"),
}
Say = Callable[[str], None]


@dataclass(frozen=True)
class Packages:
    """A folder to lie at SITE_PACKAGES, the key of its content, and what the user must know about it."""

    folder: Path
    key: str
    warning: str = ""


@dataclass(frozen=True)
class Requirements:
    """What is installed: the dependencies as in pyproject.toml, base and runtime extra, and the constraints."""

    base: tuple[str, ...]
    torch: tuple[str, ...]
    constraints: str

    def key(self, part: str) -> str:
        """Name of the folder `part`: content of dependencies, constraints, Python and the code that slims."""
        here = Path(__file__).parent
        sources = [hashlib.sha256((here / name).read_bytes()).hexdigest() for name in SOURCES[part]]
        python = [sys.implementation.cache_tag, platform.machine(), sysconfig.get_config_var("SOABI")]
        parts = [part, self.base, self.torch if part == "torch" else (), self.constraints, python, sources]
        return f"{part}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]}"


def read_requirements(root: Path = ROOT) -> Requirements:
    """Read pyproject.toml and tests/constraints.txt."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    constraints = root / "tests" / "constraints.txt"
    text = constraints.read_text() if constraints.is_file() else ""
    return Requirements(tuple(project["dependencies"]), tuple(project["optional-dependencies"]["runtime"]), text)


def base_packages(requirements: Requirements, cache: Path, say: Say) -> Packages:
    """The base dependencies, without torch."""
    key = requirements.key("base")

    def fill(folder: Path) -> None:
        say("installing the base dependencies")
        full = folder / "full"
        _install(requirements.base, requirements.constraints, full)
        link_tree(full, folder / "site", gpu=False)
        shutil.rmtree(full)
        _compile(folder / "site", say)

    folder = make_folder(cache / "packages" / key, fill)
    return Packages(folder / "site", key)


def torch_packages(requirements: Requirements, base: Packages, cache: Path, say: Say) -> Packages:
    """What the runtime extra adds to `base`; torch without its GPU parts where that passes the self-test."""
    key = requirements.key("torch")

    def fill(folder: Path) -> None:
        say("installing the dependencies of the runtime with torch (hard links where uv has them)")
        full = folder / "full"
        _install((*requirements.base, *requirements.torch), requirements.constraints, full)
        _check_same_versions(base.folder, full)
        try:
            _slim(full, folder / "site", base.folder, say)
        except BuildError as error:
            shutil.rmtree(folder / "site")
            link_tree(full, folder / "site", gpu=True, without=[base.folder])
            size = _megabytes(folder / "site")
            warning = f"torch could not be slimmed, the image has all {size} MB of it "
            warning += f"(remove {cache / 'packages' / key} to try again): {error}"
            (folder / "warning").write_text(warning)
        shutil.rmtree(full)
        _compile(folder / "site", say)

    folder = make_folder(cache / "packages" / key, fill)
    warning = folder / "warning"
    return Packages(folder / "site", key, warning.read_text() if warning.is_file() else "")


def _slim(full: Path, site: Path, base: Path, say: Say) -> None:
    link_tree(full, site, gpu=False, without=[base])
    stubs = add_stubs(full, site)
    say(f"torch without GPU parts: {_megabytes(full)} -> {_megabytes(site)} MB, stand-ins {stubs or 'not needed'}")
    test = str(Path(__file__).parent / "selftest.py")
    say(run([base_interpreter(), "-I", "-S", "-B", test, str(site), str(base)]).strip())


def _install(dependencies: Sequence[str], constraints: str, target: Path) -> None:
    target.mkdir()
    limits, wanted = target.parent / "constraints.txt", target.parent / "requirements.txt"
    limits.write_text(f"{constraints}\n{installed_versions()}")
    wanted.write_text("\n".join(dependencies))
    options = ["--quiet", "--python", sys.executable, "--target", str(target), "--constraint", str(limits)]
    run([find_uv(), "pip", "install", *options, "--requirement", str(wanted)], {"UV_HTTP_TIMEOUT": "300"})


def installed_versions() -> str:
    """Constraints that give the images the versions the tests run with; "" outside of their environment."""
    found = {(dist.metadata["Name"] or "").lower(): dist.version for dist in importlib.metadata.distributions()}
    if OWN_DISTRIBUTION not in found:
        return ""
    others = sorted(item for item in found.items() if item[0] not in ("", OWN_DISTRIBUTION))
    return "".join(f"{name}=={version}\n" for name, version in others)


def _check_same_versions(base: Path, full: Path) -> None:
    missing = sorted(path.name for path in base.glob("*.dist-info") if not (full / path.name).is_dir())
    if missing:
        raise BuildError(
            f"the runtime extra resolves to other versions than the base: {missing}; pin them in tests/constraints.txt"
        )


def _compile(site: Path, say: Say) -> None:
    # the images have no file times and a read-only root: only hashes that nobody checks make these files valid
    say("compiling to bytecode")
    options = ["-q", "-f", "-j2", "--invalidation-mode", "unchecked-hash", "-s", str(site), "-p", f"/{SITE_PACKAGES}"]
    # files in the syntax of another Python version or templates do not compile and are never imported
    try:
        run([base_interpreter(), "-I", "-m", "compileall", *options, str(site)])
    except BuildError as error:
        if "SyntaxError" not in str(error):
            raise


def base_interpreter() -> str:
    """The interpreter without this environment's packages."""
    return str(Path(getattr(sys, "_base_executable", sys.executable)).resolve())


def _megabytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()) >> 20
