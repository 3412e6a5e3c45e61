"""Model folders over HTTP from a pod: whole and damaged ones as web folders, a whole one as a gated hub repository.

The pod runs this file's text with the Python of the runtime image, so it needs nothing but the standard library.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import struct
from pathlib import Path
from typing import Any

PORT = 8080
ROOT = Path("/tmp/models")
SAMPLE = Path("/models/tiny")
WEIGHTS = "model.safetensors"
TRUNCATED_BYTES = 100_000
TENSOR = "model.layers.1.mlp.up_proj.weight"
REPOSITORY = "lighthouse/tiny"
COMMIT = "c0ffee"
TOKEN = "hf_of_the_test"

Tensors = dict[str, dict[str, Any]]


def read_tensors(path: Path) -> tuple[Tensors, bytes]:
    """The header of a safetensors file without its metadata, and the bytes that its offsets count in."""
    content = path.read_bytes()
    (header_bytes,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + header_bytes])
    return {name: entry for name, entry in header.items() if name != "__metadata__"}, content[8 + header_bytes :]


def write_tensors(path: Path, tensors: Tensors, data: bytes) -> None:
    """A valid file with the tensors of `tensors`, taken from `data` at their old offsets."""
    header, body = {}, bytearray()
    for name, entry in tensors.items():
        start, end = entry["data_offsets"]
        header[name] = entry | {"data_offsets": [len(body), len(body) + end - start]}
        body += data[start:end]
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def make_folders() -> None:
    """The sample, and copies of it that are damaged each in a way of its own."""
    for name in ("tiny", "truncated", "missing", "dtype"):
        shutil.copytree(SAMPLE, ROOT / name)
    os.truncate(ROOT / "truncated" / WEIGHTS, TRUNCATED_BYTES)
    tensors, data = read_tensors(SAMPLE / WEIGHTS)
    write_tensors(ROOT / "missing" / WEIGHTS, {name: tensors[name] for name in tensors if name != TENSOR}, data)
    integers = tensors[TENSOR] | {"dtype": "I32"}  # as wide as the sample's F32: only the type is wrong
    write_tensors(ROOT / "dtype" / WEIGHTS, tensors | {TENSOR: integers}, data)


def list_files() -> bytes:
    """What the hub's API says of the sample: sizes, and a checksum for every file."""
    siblings: list[dict[str, Any]] = []
    for path in sorted(SAMPLE.iterdir()):
        content = path.read_bytes()
        entry: dict[str, Any] = {"rfilename": path.name, "size": len(content)}
        if path.name == WEIGHTS:
            entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        else:
            entry["blobId"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        siblings.append(entry)
    return json.dumps({"sha": COMMIT, "siblings": siblings}).encode()


class Handler(http.server.SimpleHTTPRequestHandler):
    """Web folders as they lie on disk; the hub's two addresses want the token, and weights lie elsewhere there."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments, directory=str(ROOT))

    def do_GET(self) -> None:
        files = f"/{REPOSITORY}/resolve/{COMMIT}/"
        listing = f"/api/models/{REPOSITORY}/revision/main?blobs=true"
        if not self.path.startswith((files, listing)):
            super().do_GET()
        elif self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.send_error(401)
        elif self.path == listing:
            body = list_files()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        elif self.path == files + WEIGHTS:
            self.send_response(302)
            self.send_header("Location", f"/tiny/{WEIGHTS}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.path = self.path.replace(files, "/tiny/")
            super().do_GET()


if __name__ == "__main__":
    make_folders()
    http.server.ThreadingHTTPServer(("", PORT), Handler).serve_forever()
