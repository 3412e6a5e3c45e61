"""Images on the nodes: import of OCI archives into each containerd, and images of one static program.

An import sends only the layers that the node's store lacks: a change in our own code is a few megabytes, not 700.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, cast

from e2e.cluster.build import Program, Report, build
from e2e.cluster.errors import ClusterError
from e2e.cluster.node import Node
from e2e.images.oci import Config, File, Layer, copy_thin, read_index, write_archive

CTR = ("ctr", "--namespace", "k8s.io")


def parse_images(listing: str) -> dict[str, str]:
    """Name -> digest in what `ctr images ls` prints."""
    rows = [line.split() for line in listing.splitlines()[1:]]
    return {row[0]: row[2] for row in rows if len(row) > 2}


def load_everywhere(nodes: Sequence[Node], name: str, archive: Path) -> list[str]:
    """Import `archive` on every node that lacks it; return those nodes. Raises ClusterError."""
    if not archive.exists():
        raise ClusterError(f"there is no image archive {archive}; build it first")
    try:
        found, digest = read_index(archive)
    except ValueError as error:
        raise ClusterError(str(error)) from error
    if found != name:
        raise ClusterError(f"{archive} holds the image {found}, not {name}")
    with ThreadPoolExecutor(max_workers=len(nodes) or 1) as pool:
        loaded = pool.map(lambda node: _load(node, name, digest, archive), nodes)
    return [node.name for node, new in zip(nodes, loaded, strict=True) if new]


def built_archive(program: Program, report: Report) -> tuple[str, Path]:
    """Name and archive of an image that holds only `program`; both are made once."""
    binary = build(program, report)
    archive, name = binary.with_suffix(".tar"), f"localhost/{program.name}:dev"
    if not archive.exists():
        layer = Layer("usr/bin", {program.name: File(binary.read_bytes(), 0o755)})
        config = Config(entrypoint=(f"/usr/bin/{program.name}",), env=(), user="65535:65535")
        write_archive(name, archive, [layer], config)
    return name, archive


def _load(node: Node, name: str, digest: str, archive: Path) -> bool:
    if parse_images(node.execute(*CTR, "images", "ls")).get(name) == digest:
        return False
    have = set(node.execute(*CTR, "content", "ls", "--quiet").split())
    errors = _import(node, archive, have)
    if errors:  # the store may have dropped a layer since it was asked
        errors = _import(node, archive, set())
    if errors:
        raise ClusterError(f"containerd of {node.name} does not take {archive} ({name}): {errors}")
    _drop_replaced(node)
    return True


def _import(node: Node, archive: Path, have: set[str]) -> str:
    """Returns what went wrong, "" when nothing did."""
    command = [*node.enter(), *CTR, "images", "import", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        broken = ""
        try:
            copy_thin(archive, cast(BinaryIO, process.stdin), have)
            process.stdin.close()
        except BrokenPipeError as error:
            broken = str(error)
        said = process.stderr.read().decode(errors="replace").strip()
    return (said or broken or f"exit {process.returncode}") if process.returncode or broken else ""


def _drop_replaced(node: Node) -> None:
    """Forget images whose name moved on; running containers keep their snapshots."""
    images = parse_images(node.execute(*CTR, "images", "ls"))
    named = {digest for name, digest in images.items() if not name.startswith("sha256:")}
    old = [name for name, digest in images.items() if name.startswith("sha256:") and digest not in named]
    if old:
        node.execute(*CTR, "images", "rm", *old, check=False)
