"""A model on the compiled kernels: the same layers as models/llama.py, one call for a whole step."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tandem_runtime.models.config import ModelConfig
from tandem_runtime.models.llama import Layer, Llama
from tandem_runtime.ops.linear import Linear
from tandem_runtime.ops.native import Native
from tandem_runtime.ops.native_structs import BFLOAT16, INT8, LayerStruct, LinearStruct, ModelStruct, StepStruct
from tandem_runtime.ops.packed import PackedLinear

MOST_HEAD_DIM = 256
"""kMaxHeadDim: what a page's keys are turned in lies on the stack."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Tokens of a step, sequence after sequence. `first_rows` and `first_pages` have one entry more: the end."""

    token_ids: list[int]
    positions: list[int]
    first_rows: list[int]
    first_pages: list[int]
    pages: list[int]
    output_rows: list[int]


def fits(config: ModelConfig) -> bool:
    """Whether the compiled kernels can run such a model."""
    return config.head_dim <= MOST_HEAD_DIM


class NativeModel:
    """`model` with packed linears; `pool` is the KV tensor, [pages, layers, 2, kv_heads, 32, head_dim] of bfloat16 or
    [pages, layers, 2, kv_heads, plane_bytes] of int8."""

    def __init__(self, native: Native, model: Llama, pool: Tensor) -> None:
        config = model.config
        self.native = native
        self._vocab = config.vocab_size
        self._pool = pool
        self._kept: list[Tensor] = []
        layers = (LayerStruct * config.layers)()
        for index, layer in enumerate(model.layers):
            layers[index] = self._layer(layer, config.window(index))
        self._head = _struct(model.head)
        self._struct = ModelStruct(
            config.hidden_size,
            config.intermediate_size,
            config.heads,
            config.kv_heads,
            config.head_dim,
            config.layers,
            layers,
            self._keep(model.norm),
            ctypes.pointer(self._head),
            model.embedding.data_ptr() if model.embedding.numel() else None,
            self._keep(model.inverse_frequencies),
            config.norm_eps,
            config.rope.attention_factor,
        )
        self._model = model
        self._logits = torch.empty(0, config.vocab_size)

    def _keep(self, tensor: Tensor | None) -> int | None:
        if tensor is None:
            return None
        self._kept.append(tensor.float().contiguous())
        return self._kept[-1].data_ptr()

    def _layer(self, layer: Layer, window: int) -> LayerStruct:
        return LayerStruct(
            self._keep(layer.attention_norm),
            _struct(layer.qkv),
            _struct(layer.output),
            self._keep(layer.mlp_norm),
            _struct(layer.gate_up),
            _struct(layer.down),
            self._keep(layer.query_norm),
            self._keep(layer.key_norm),
            window,
        )

    def logits(self, batch: Batch) -> Tensor:
        """Computes the batch and stores its KV; float32 [output rows, vocab], valid until the next call."""
        rows = len(batch.output_rows)
        if self._logits.shape[0] < rows:
            self._logits = torch.empty(rows, self._vocab)
        columns = (batch.token_ids, batch.positions, batch.first_rows, batch.first_pages)
        arrays: list[NDArray[np.int64] | NDArray[np.int32]] = [np.array(column, dtype=np.int64) for column in columns]
        arrays += [np.array(batch.pages, dtype=np.int32), np.array(batch.output_rows, dtype=np.int64)]
        step = StepStruct(
            len(batch.token_ids),
            len(batch.first_rows) - 1,
            rows,
            *(array.ctypes.data for array in arrays),
            self._pool.data_ptr(),
            self._pool[0].nbytes,
            INT8 if self._pool.dtype == torch.int8 else BFLOAT16,
            self._logits.data_ptr(),
        )
        self.native.step(self._struct, step)
        return self._logits[:rows]


def _struct(linear: Linear) -> LinearStruct:
    assert isinstance(linear, PackedLinear)
    return linear.struct
