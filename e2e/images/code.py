"""The top layer of both images: our two packages with bytecode, their metadata and commands."""

from __future__ import annotations

import hashlib
import os
import py_compile
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from e2e.images.cache import replace_file
from e2e.images.layout import HOME, ROOT, SITE_PACKAGES
from e2e.images.oci import File, Layer
from e2e.images.tools import BuildError

PACKAGES = ("operator/tandem_operator", "runtime/tandem_runtime")
SCRIPT = """#!/{home}/bin/python3
import sys

from {module} import {function}

sys.exit({function}())
"""


def code_layer(cache: Path, root: Path = ROOT) -> Layer:
    """Both packages as they lie in the working tree, saved or not committed. Costs what changed."""
    files: dict[str, bytes | File] = {}
    for package in PACKAGES:
        for path in walk_sources(root / package):
            relative = path.relative_to((root / package).parent).as_posix()
            content = path.read_bytes()
            files[f"{SITE_PACKAGES}/{relative}"] = content
            if path.suffix == ".py":
                compiled = f"{path.parent.name}/__pycache__/{path.stem}.{sys.implementation.cache_tag}.pyc"
                target = Path(relative).parents[1] / compiled
                files[f"{SITE_PACKAGES}/{target.as_posix()}"] = compile_source(path, relative, content, cache)
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    files |= {f"{HOME}/bin/{name}": File(_script(entry), mode=0o755) for name, entry in project["scripts"].items()}
    files |= {f"{SITE_PACKAGES}/{name}": content for name, content in _metadata(project).items()}
    return Layer("", files)


def walk_sources(package: Path) -> Iterator[Path]:
    """The files of a package, without bytecode and hidden files."""
    for folder, names, files in os.walk(package):
        names[:] = [name for name in names if name != "__pycache__" and not name.startswith(".")]
        yield from (Path(folder) / name for name in files if not name.startswith(".") and not name.endswith(".pyc"))


def compile_source(path: Path, relative: str, content: bytes, cache: Path) -> bytes:
    """Bytecode that is valid without file times; cached by content. Raises BuildError on a syntax error."""
    key = hashlib.sha256(f"{sys.implementation.cache_tag}\0{relative}\0".encode() + content).hexdigest()
    compiled = cache / "bytecode" / key
    if not compiled.is_file():
        with replace_file(compiled) as temporary:
            try:
                mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
                py_compile.compile(
                    str(path), str(temporary), f"/{SITE_PACKAGES}/{relative}", True, invalidation_mode=mode
                )
            except py_compile.PyCompileError as error:
                raise BuildError(f"{path} does not compile: {error.msg}") from error
    os.utime(compiled)
    return compiled.read_bytes()


def _script(entry: str) -> bytes:
    module, _, function = entry.partition(":")
    return SCRIPT.format(home=HOME, module=module, function=function).encode()


def _metadata(project: dict[str, object]) -> dict[str, bytes]:
    """What importlib.metadata reads: name, version and the commands."""
    name, version = str(project["name"]), str(project["version"])
    folder = f"{name.replace('-', '_')}-{version}.dist-info"
    scripts = project["scripts"]
    assert isinstance(scripts, dict)
    commands = "".join(f"{command} = {entry}\n" for command, entry in sorted(scripts.items()))
    return {
        f"{folder}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{folder}/entry_points.txt": f"[console_scripts]\n{commands}".encode(),
    }
