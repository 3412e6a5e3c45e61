"""A model as the formulas need it: counts that follow from config.json, none of its weights."""

from __future__ import annotations

import msgspec

from tandem_operator.performance.hardware import Quantization


class AttentionLayers(msgspec.Struct, frozen=True, kw_only=True):
    """Layers that keep keys and values of the same form. A hybrid model has several groups."""

    layers: int
    kv_heads: int = 0
    key_dim: int = 0
    value_dim: int = 0
    """Per head; mostly the same as `key_dim`."""
    latent_dim: int = 0
    """MLA: kv_lora_rank + qk_rope_head_dim; kept once per token, whole on every device of a tensor-parallel group."""
    window_tokens: int | None = None
    """Sliding window or chunk: no more than so many tokens are kept. None: all."""

    def token_bytes(self, kv_dtype_bytes: float = 2, tensor_parallel: int = 1) -> float:
        """Bytes that one token takes on one device: GQA shards are whole heads, a latent is never divided."""
        if self.latent_dim:
            return self.layers * self.latent_dim * kv_dtype_bytes
        heads = -(-self.kv_heads // tensor_parallel)
        return self.layers * heads * (self.key_dim + self.value_dim) * kv_dtype_bytes

    def held_tokens(self, context_tokens: int) -> int:
        """Tokens kept of a sequence of `context_tokens`."""
        return context_tokens if self.window_tokens is None else min(context_tokens, self.window_tokens)


class StateLayers(msgspec.Struct, frozen=True, kw_only=True):
    """Mamba or linear-attention layers: a state per sequence that does not grow with the context."""

    layers: int
    heads: int
    """Units that tensor parallelism can divide the state into."""
    state_bytes: int
    """Of one layer and one sequence, all heads: recurrent state and convolution window."""

    def sequence_bytes(self, tensor_parallel: int = 1) -> float:
        """Bytes of one sequence on one device."""
        share = -(-self.heads // tensor_parallel) / self.heads
        return self.layers * self.state_bytes * share


class ModelShape(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one text model (the language part of a multimodal one)."""

    name: str = ""
    architecture: str = ""
    layers: int
    """All blocks, whatever mixes their tokens."""
    hidden: int
    heads: int
    """Query heads of the attention layers."""
    head_dim: int
    vocabulary: int
    parameters: int
    """All that must be loaded."""
    active_parameters: int
    """Those that one token is multiplied with: without the input embedding and the experts that do not run for it."""
    linear_parameters: int
    """Of `parameters`, matrices in blocks: what quantisation shrinks (embeddings, head and norms stay 16 bit)."""
    active_linear_parameters: int
    """Of `active_parameters`, the same."""
    expert_parameters: int = 0
    """Of `parameters`, all routed experts together."""
    experts: int = 0
    """Routed experts per MoE layer; 0: a dense model."""
    experts_active: int = 0
    """Of them, for one token."""
    attention: tuple[AttentionLayers, ...]
    state: tuple[StateLayers, ...] = ()
    max_context_tokens: int
    tied_head: bool = False
    weight_bytes: int
    """Size of the checkpoint: the index's total_size where known, else parameters by their stored types."""
    stored_quantization: Quantization = "None"
    """What the checkpoint comes in; None: 16 or 32 bit."""
    stored_bytes_per_parameter: float = 2.0
    """Of parameters that are not quantised."""

    @property
    def is_moe(self) -> bool:
        """Whether tokens are routed to experts."""
        return self.experts > 0

    @property
    def attention_layers(self) -> int:
        """Layers that look at earlier tokens."""
        return sum(group.layers for group in self.attention)

    def kv_bytes_per_token(self, kv_dtype_bytes: float = 2, tensor_parallel: int = 1) -> float:
        """Bytes of one more token on one device while no window is full; with 1 device: those of the whole model."""
        return sum(group.token_bytes(kv_dtype_bytes, tensor_parallel) for group in self.attention)

    def sequence_bytes(self, context_tokens: int, kv_dtype_bytes: float = 2, tensor_parallel: int = 1) -> float:
        """Bytes of one sequence on one device: windows hold what they hold, states are constant."""
        kept = sum(
            group.token_bytes(kv_dtype_bytes, tensor_parallel) * group.held_tokens(context_tokens)
            for group in self.attention
        )
        return kept + self.state_bytes_per_sequence(tensor_parallel)

    def state_bytes_per_sequence(self, tensor_parallel: int = 1) -> float:
        """Constant part of one sequence on one device."""
        return sum(group.sequence_bytes(tensor_parallel) for group in self.state)
