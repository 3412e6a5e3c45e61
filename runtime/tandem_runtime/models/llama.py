"""The decoder of all families (Llama, Mistral, Qwen2, Qwen3): one forward pass over a flat list of tokens.

Attention and the KV cache are the caller's, who knows what the tokens belong to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tandem_runtime.models.config import ModelConfig
from tandem_runtime.models.loader import Checkpoint
from tandem_runtime.models.rope import inverse_frequencies
from tandem_runtime.ops.linear import Linear
from tandem_runtime.ops.norm import rms_norm, swiglu
from tandem_runtime.ops.packed import Packing
from tandem_runtime.ops.rope import apply_rope, rope_tables

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, query [tokens, heads, head_dim], keys and values [tokens, kv_heads, head_dim]) -> like query.

It stores the keys and values too."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights of one layer; q, k, v are one matrix, so are gate and up."""

    attention_norm: Tensor
    qkv: Linear
    output: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear
    query_norm: Tensor | None = None
    key_norm: Tensor | None = None
    """Of one head (Qwen3): [head_dim]."""


class Llama:
    """Weights on `device` in `dtype`. Raises ModelError when the checkpoint does not fit `config`.

    `packing`: linears for the compiled kernels (bfloat16 on a CPU); models/native.py runs them, `forward` does not.
    """

    def __init__(
        self,
        config: ModelConfig,
        checkpoint: Checkpoint,
        dtype: torch.dtype,
        device: torch.device,
        packing: Packing | None = None,
    ) -> None:
        self.config = config
        self._packing = packing
        self._checkpoint = checkpoint
        self._dtype = dtype
        self._device = device
        self._elements = 0
        hidden, vocab = config.hidden_size, config.vocab_size
        self.embedding = self._take("model.embed_tokens.weight", vocab, hidden)
        self.layers = [self._take_layer(f"model.layers.{index}.") for index in range(config.layers)]
        self.norm = self._take("model.norm.weight", hidden)
        head = self.embedding if config.tied_head else self._take("lm_head.weight", vocab, hidden)
        self.head = Linear(head) if packing is None else packing.exact(head)
        if packing is not None and config.tied_head:
            self.embedding = torch.empty(0)  # its rows are read from the packed head
        self.weight_bytes = dtype.itemsize * self._elements
        checkpoint.check_all_taken(config.tied_head)
        self.inverse_frequencies = inverse_frequencies(config.rope, config.head_dim).to(device)

    def _take(self, name: str, *shape: int) -> Tensor:
        self._elements += math.prod(shape)
        return self._checkpoint.tensor(name, shape).to(self._device, self._dtype, copy=True)

    def _take_linear(
        self, names: list[str], outs: list[int], columns: int, bias: bool, *, pairs: bool = False
    ) -> Linear:
        weights = [
            self._checkpoint.tensor(f"{name}.weight", (out, columns)) for name, out in zip(names, outs, strict=True)
        ]
        biases = [self._take(f"{name}.bias", out) for name, out in zip(names, outs, strict=True)] if bias else []
        self._elements += sum(outs) * columns
        fused = torch.empty(sum(outs), columns, dtype=self._dtype, device=self._device)
        for part, weight in zip(torch.split(fused, outs), weights, strict=True):
            part.copy_(weight)
        joined = torch.cat(biases) if bias else None
        return Linear(fused, joined) if self._packing is None else self._packing(fused, joined, pairs=pairs)

    def _take_layer(self, name: str) -> Layer:
        config = self.config
        hidden, inner = config.hidden_size, config.intermediate_size
        query, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
        attention, mlp = f"{name}self_attn.", f"{name}mlp."
        return Layer(
            self._take(f"{name}input_layernorm.weight", hidden),
            self._take_linear([f"{attention}{part}_proj" for part in "qkv"], [query, kv, kv], hidden, config.qkv_bias),
            self._take_linear([f"{attention}o_proj"], [hidden], query, config.output_bias),
            self._take(f"{name}post_attention_layernorm.weight", hidden),
            self._take_linear(
                [f"{mlp}gate_proj", f"{mlp}up_proj"], [inner, inner], hidden, config.mlp_bias, pairs=True
            ),
            self._take_linear([f"{mlp}down_proj"], [hidden], inner, config.mlp_bias),
            self._take(f"{attention}q_norm.weight", config.head_dim) if config.qk_norm else None,
            self._take(f"{attention}k_norm.weight", config.head_dim) if config.qk_norm else None,
        )

    def forward(self, token_ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """int64 [tokens], int64 [tokens] -> hidden state after the last layer, not normalised, [tokens, hidden]."""
        config = self.config
        tokens = token_ids.shape[0]
        sizes = [config.heads * config.head_dim, config.kv_heads * config.head_dim, config.kv_heads * config.head_dim]
        cos, sin = rope_tables(positions, self.inverse_frequencies, self._dtype, config.rope.attention_factor)
        x = functional.embedding(token_ids, self.embedding)
        for index, layer in enumerate(self.layers):
            qkv = layer.qkv(rms_norm(x, layer.attention_norm, config.norm_eps))
            query, keys, values = (part.view(tokens, -1, config.head_dim) for part in torch.split(qkv, sizes, dim=-1))
            if layer.query_norm is not None and layer.key_norm is not None:
                query = rms_norm(query, layer.query_norm, config.norm_eps)
                keys = rms_norm(keys, layer.key_norm, config.norm_eps)
            attended = attend(index, apply_rope(query, cos, sin), apply_rope(keys, cos, sin), values)
            x = x + layer.output(attended.reshape(tokens, -1))
            x = x + layer.down(swiglu(layer.gate_up(rms_norm(x, layer.mlp_norm, config.norm_eps))))
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """[rows, hidden] as `forward` gives it -> float32 [rows, vocab]."""
        return self.head(rms_norm(hidden, self.norm, self.config.norm_eps)).float()
