"""What tells the families apart: one decoder layer serves all, these fields say which of its parts a family has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

SLIDING: Final = "sliding_attention"
FULL: Final = "full_attention"


@dataclass(frozen=True, slots=True)
class Family:
    """`qkv_bias`: True or False always, None: as attention_bias says. Defaults are those of the Hugging Face class
    where config.json leaves a field out; `head_dim` None: hidden_size / num_attention_heads."""

    architecture: str
    model_type: str
    qkv_bias: bool | None
    output_bias: bool | None
    mlp_bias: bool | None
    qk_norm: bool = False
    head_dim: int | None = None
    window: str = "none"
    """none: every layer attends to all; always: all layers slide by sliding_window; switched: use_sliding_window
    lets those from max_window_layers on slide, or those that layer_types names."""
    window_tokens: int = 4096


LLAMA: Final = Family("LlamaForCausalLM", "llama", None, None, None)
MISTRAL: Final = Family("MistralForCausalLM", "mistral", False, False, False, window="always")
QWEN2: Final = Family("Qwen2ForCausalLM", "qwen2", True, False, False, window="switched")
QWEN3: Final = Family("Qwen3ForCausalLM", "qwen3", None, None, False, qk_norm=True, head_dim=128, window="switched")
FAMILIES: Final = {family.model_type: family for family in (LLAMA, MISTRAL, QWEN2, QWEN3)}
BY_ARCHITECTURE: Final = {family.architecture: family for family in FAMILIES.values()}

WINDOW_LAYERS_FROM: Final = 28
"""Default of max_window_layers in the Qwen configurations."""


def layer_windows(family: Family, raw: dict[str, Any], layers: int) -> tuple[int, ...]:
    """Tokens that each layer attends to at most, its own included; 0 is all. Raises ValueError naming the field."""
    named = raw.get("layer_types")
    size = raw.get("sliding_window", family.window_tokens) or 0
    if not isinstance(size, int) or size < 0:
        raise ValueError(f"sliding_window is {size!r}; a positive number of tokens or null is needed")
    if family.window == "always":
        types = [SLIDING] * layers
    elif family.window == "switched" and raw.get("use_sliding_window"):
        first = raw.get("max_window_layers", WINDOW_LAYERS_FROM)
        types = [SLIDING if layer >= first else FULL for layer in range(layers)]
    else:
        types = [FULL] * layers
    if named is not None:
        if len(named) != layers or not set(named) <= {SLIDING, FULL}:
            raise ValueError(f"layer_types is {named!r:.200}; {layers} of {SLIDING!r} or {FULL!r} are needed")
        if SLIDING in named and (family.window == "none" or SLIDING not in types):
            raise ValueError(f"layer_types names {SLIDING!r}, which {family.architecture} has not switched on")
        if family.window == "always" and FULL in named:
            raise ValueError(f"layer_types names {FULL!r}; every layer of {family.architecture} slides")
        types = list(named)
    return tuple(size if kind == SLIDING else 0 for kind in types)
