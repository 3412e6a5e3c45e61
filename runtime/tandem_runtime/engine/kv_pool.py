"""The pages of the KV cache: one tensor [pages, layers, 2 (K, V), kv_heads, page_tokens, head_dim].

A page is contiguous over all layers, so what goes on the wire is a slice of memory, without a copy on a CPU. In int8
the last two dimensions are one, of bytes: codes, then scales (ops/kv_pages.py).
"""

from __future__ import annotations

import mmap

import torch
from torch import Tensor

from tandem_runtime.contracts.kv_protocol import Layout
from tandem_runtime.ops.kv_pages import KvPages, plane_bytes, split_planes


class KvPool:
    """`pages` pages of `layout` on `device`, zero at first. CPU memory is taken when it is touched, not before.

    `dtype`: what is computed in, and what is kept unless the layout says int8.
    """

    def __init__(self, layout: Layout, pages: int, dtype: torch.dtype, device: torch.device) -> None:
        self.layout = layout
        self.pages = pages
        self._layer_bytes = layout.page_bytes // layout.layers
        self._dtype = dtype
        kept = torch.int8 if layout.dtype == "int8" else dtype
        plane: tuple[int, ...] = (layout.page_tokens, layout.head_dim)
        if kept == torch.int8:
            plane = (plane_bytes(layout.page_tokens, layout.head_dim, kept),)
        shape = (pages, layout.layers, 2, layout.kv_heads, *plane)
        self._bytes: memoryview | None = None
        if device.type == "cpu":
            memory = mmap.mmap(-1, pages * layout.page_bytes)
            if hasattr(mmap, "MADV_HUGEPAGE"):
                memory.madvise(mmap.MADV_HUGEPAGE)
            self._bytes = memoryview(memory)
            self.tensor = torch.frombuffer(memory, dtype=kept).view(shape)
        else:
            self.tensor = torch.zeros(shape, dtype=kept, device=device)

    def layer(self, index: int) -> tuple[KvPages, KvPages]:
        """Views of K and V of one layer."""
        return self._view(self.tensor[:, index, 0]), self._view(self.tensor[:, index, 1])

    def _view(self, planes: Tensor) -> KvPages:
        if planes.dtype != torch.int8:
            return KvPages(planes, self._dtype)
        codes, scales = split_planes(planes, self.layout.page_tokens, self.layout.head_dim)
        return KvPages(codes, self._dtype, scales)

    def clear(self, pages: list[int]) -> None:
        """Zeroes pages before their first token is written: whatever is masked out must be finite."""
        if pages:
            self.tensor[pages] = 0

    def read(self, pages: list[int], layer_first: int, layer_end: int) -> list[memoryview]:
        """Copies of those layers of each page."""
        size = self._check(pages, layer_first, layer_end)
        if self._bytes is not None:
            starts = [page * self.layout.page_bytes + layer_first * self._layer_bytes for page in pages]
            return [memoryview(bytes(self._bytes[start : start + size])) for start in starts]
        copied = self.tensor[pages, layer_first:layer_end].contiguous().view(torch.uint8).cpu()
        return [memoryview(page.numpy()).cast("B").toreadonly() for page in copied]

    def write(self, pages: list[int], layer_first: int, layer_end: int, payloads: list[memoryview]) -> None:
        """Raises ValueError when a payload's size is wrong."""
        size = self._check(pages, layer_first, layer_end)
        for page, payload in zip(pages, payloads, strict=True):
            if payload.nbytes != size:
                layers = layer_end - layer_first
                raise ValueError(
                    f"payload of {payload.nbytes} bytes for {layers} layers of page {page}; it takes {size}"
                )
        if self._bytes is not None:
            for page, payload in zip(pages, payloads, strict=True):
                start = page * self.layout.page_bytes + layer_first * self._layer_bytes
                self._bytes[start : start + size] = payload.cast("B")
        elif pages:
            joined = torch.frombuffer(bytearray(b"".join(payloads)), dtype=self.tensor.dtype)
            target = self.tensor[pages, layer_first:layer_end]
            self.tensor[pages, layer_first:layer_end] = joined.view(target.shape).to(self.tensor.device)

    def _check(self, pages: list[int], layer_first: int, layer_end: int) -> int:
        if not 0 <= layer_first < layer_end <= self.layout.layers:
            raise ValueError(f"layers {layer_first} to {layer_end}; the model has {self.layout.layers}")
        for page in pages:
            if not 0 <= page < self.pages:
                raise ValueError(f"page {page}; there are {self.pages}")
        return (layer_end - layer_first) * self._layer_bytes
