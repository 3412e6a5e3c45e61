"""A linear layer packed for the compiled kernels: bfloat16, or int8 with one scale for each output."""

from __future__ import annotations

import mmap
from dataclasses import dataclass

import torch
from torch import Tensor

from tandem_runtime.ops.linear import Linear
from tandem_runtime.ops.native import Native
from tandem_runtime.ops.native_structs import BFLOAT16, INT8, LinearStruct


@dataclass(frozen=True, slots=True)
class Packing:
    """How the linears of a model are packed. `int8`: weights int8, activations rounded row by row as they come."""

    native: Native
    int8: bool = False

    def __call__(self, weight: Tensor, bias: Tensor | None = None, *, pairs: bool = False) -> PackedLinear:
        """bfloat16 [out, in]. `pairs`: gate above up; the layer then gives silu(gate) * up."""
        return PackedLinear(self, weight, bias, pairs)

    def exact(self, weight: Tensor) -> PackedLinear:
        """bfloat16 whatever `int8` says: for the head, where rounding costs most."""
        return PackedLinear(Packing(self.native), weight, None, False)


class PackedLinear(Linear):
    """y = x weight^T + bias in float32; of pairs silu(gate) * up."""

    def __init__(self, packing: Packing, weight: Tensor, bias: Tensor | None, pairs: bool) -> None:
        native = self._native = packing.native
        n, k = weight.shape
        kind = INT8 if packing.int8 else BFLOAT16
        self.outputs = n // 2 if pairs else n
        self.data = huge_memory(native.packed_bytes(n, k, kind))
        self.scales = torch.zeros(_padded(n, native.panel)) if packing.int8 else None
        native.pack(weight.contiguous(), kind, pairs, self.data, self.scales)
        self.panel_bias = None if bias is None else _in_panels(bias.float(), native.panel, pairs)
        self.struct = LinearStruct(
            *(tensor if tensor is None else tensor.data_ptr() for tensor in (self.data, self.scales, self.panel_bias)),
            *(n, k, kind, pairs),
        )

    def __call__(self, x: Tensor) -> Tensor:
        """[rows, in] -> [rows, out] in x's dtype."""
        out = torch.empty(x.shape[0], self.outputs)
        self._native.linear(self.struct, x.float().contiguous(), out)
        return out.to(x.dtype)


def huge_memory(size: int) -> Tensor:
    """uint8 [size], zero, on huge pages where the system has them: 10 to 25 % faster to read."""
    memory = mmap.mmap(-1, max(1, size))
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)


def _padded(n: int, panel: int) -> int:
    return (-(-n // panel) + 1) * panel


def _in_panels(bias: Tensor, panel: int, pairs: bool) -> Tensor:
    """In the order in which columns stand in panels; padding is zero."""
    padded = torch.zeros(_padded(bias.numel(), panel))
    if not pairs:
        padded[: bias.numel()] = bias
        return padded
    half, inner = panel // 2, bias.numel() // 2
    for start in range(0, inner, half):
        count = min(half, inner - start)
        padded[2 * start : 2 * start + count] = bias[start : start + count]
        padded[2 * start + half : 2 * start + half + count] = bias[inner + start : inner + start + count]
    return padded
