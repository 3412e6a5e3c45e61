"""A model server that misbehaves on demand: cuts connections, lies, forgets ranges, changes its files in between."""

from __future__ import annotations

import asyncio
import hashlib
import json
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer


def safetensors(payload_bytes: int, name: str = "w") -> bytes:
    """One tensor of u8, its bytes different everywhere."""
    header = json.dumps({name: {"dtype": "U8", "shape": [payload_bytes], "data_offsets": [0, payload_bytes]}}).encode()
    payload = b"".join([number.to_bytes(4, "little") for number in range(payload_bytes // 4 + 1)])[:payload_bytes]
    return struct.pack("<Q", len(header)) + header + payload


def model_files(shards: int = 1, shard_bytes: int = 300_000) -> dict[str, bytes]:
    """A small model folder."""
    files = {
        "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
        "tokenizer.json": b'{"model": {}}',
        "chat_template.jinja": b"{{ messages }}",
    }
    if shards == 1:
        return {**files, "model.safetensors": safetensors(shard_bytes)}
    names = [f"model-{number}-of-{shards}.safetensors" for number in range(shards)]
    weight_map = {f"w{number}": name for number, name in enumerate(names)}
    files["model.safetensors.index.json"] = json.dumps({"weight_map": weight_map}).encode()
    return files | {name: safetensors(shard_bytes, f"w{number}") for number, name in enumerate(names)}


@dataclass
class ModelServer:
    """Serves `files` as a web folder below /m/ and as a hub repository org/repo."""

    files: dict[str, bytes]
    cut_after: int | None = None
    """Bytes of body after which a connection to a weight file is reset; then doubled, so that it ends some day."""
    fail_first: list[int] = field(default_factory=list)
    """Statuses answered before anything else."""
    ranges: bool = True
    tagged: bool = True
    extra_length: int = 0
    """Added to the Content-Length of weight files; negative: the body is shorter than the file."""
    refuse: dict[str, int] = field(default_factory=dict)
    wrong_range: bool = False
    stall: bool = False
    """Weight files stop after half, the connection stays open."""
    siblings: list[dict[str, Any]] | None = None
    on_cut: Callable[[], None] = lambda: None
    log: list[tuple[str, str, str]] = field(default_factory=list)
    sent_bytes: Counter[str] = field(default_factory=Counter)
    tokens: set[str] = field(default_factory=set)
    url: str = ""

    def sums(self) -> None:
        """Adds SHA256SUMS."""
        lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in self.files.items()]
        self.files["SHA256SUMS"] = "".join(lines).encode()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.log.append((request.method, request.path, request.headers.get("Range", "")))
        self.tokens.add(request.headers.get("Authorization", ""))
        if self.fail_first:
            return web.Response(status=self.fail_first.pop(0), headers={"Retry-After": "0"})
        if request.path.startswith("/api/"):
            return self.list_files()
        name = request.path.removeprefix("/m/").removeprefix("/org/repo/resolve/c0ffee/")
        if name in self.refuse:
            return web.Response(status=self.refuse[name])
        if name not in self.files:
            return web.Response(status=404)
        return await self.send(request, name)

    def list_files(self) -> web.Response:
        siblings = [self.sibling(name, content) for name, content in self.files.items()]
        return web.json_response({"sha": "c0ffee", "siblings": self.siblings or siblings})

    def sibling(self, name: str, content: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"rfilename": name, "size": len(content)}
        if name.endswith(".safetensors"):
            return entry | {"blobId": "x", "lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}}
        return entry | {"blobId": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()}

    async def send(self, request: web.Request, name: str) -> web.StreamResponse:
        content = self.files[name]
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        headers = {"ETag": tag} if self.tagged else {}
        start, status = 0, 200
        wanted = request.headers.get("Range", "")
        if wanted and self.ranges and request.headers.get("If-Range", tag) == tag:
            start, status = int(wanted.removeprefix("bytes=").rstrip("-")), 206
            shown = start + 1 if self.wrong_range else start
            whole = len(content) + max(0, self.extra_length)
            headers["Content-Range"] = f"bytes {shown}-{whole - 1}/{whole}"
        weights = name.endswith(".safetensors")
        body = content[start:]
        headers["Content-Length"] = str(len(body) + (self.extra_length if weights else 0))
        if self.extra_length < 0 and weights:
            body = body[: self.extra_length]
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        cut = self.cut_after if weights and self.cut_after is not None and self.cut_after < len(body) else None
        if self.stall and weights:
            await response.write(body[: len(body) // 2])
            while self.stall:
                await asyncio.sleep(0.05)
            return response
        await response.write(body if cut is None else body[:cut])
        self.sent_bytes[name] += len(body if cut is None else body[:cut])
        if cut is not None or (self.extra_length > 0 and weights):
            self.on_cut()
            if request.transport is not None:
                request.transport.close()
        return response


@asynccontextmanager
async def serving(files: dict[str, bytes], **settings: Any) -> AsyncIterator[ModelServer]:
    """A server on a free port of the loopback address."""
    server = ModelServer(files, **settings)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = TestServer(app)
    await runner.start_server()
    server.url = str(runner.make_url("/")).rstrip("/")
    try:
        yield server
    finally:
        await runner.close()
