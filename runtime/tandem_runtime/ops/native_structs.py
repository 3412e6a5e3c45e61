"""The structures of source/kernels.h, source/model.h and source/sampler.h, field by field."""

from __future__ import annotations

from ctypes import POINTER, Structure, c_double, c_float, c_int32, c_int64, c_void_p
from typing import Final

BFLOAT16: Final = 0
INT8: Final = 1


class LinearStruct(Structure):
    """One packed matrix."""

    _fields_ = (
        *((name, c_void_p) for name in ("data", "scales", "bias")),
        *((name, c_int64) for name in ("n", "k")),
        *((name, c_int32) for name in ("kind", "pairs")),
    )


class LayerStruct(Structure):
    """One layer; pointers to floats."""

    _fields_ = (
        ("attention_norm", c_void_p),
        ("qkv", LinearStruct),
        ("output", LinearStruct),
        ("mlp_norm", c_void_p),
        ("gate_up", LinearStruct),
        ("down", LinearStruct),
        ("query_norm", c_void_p),
        ("key_norm", c_void_p),
        ("window", c_int64),
    )


class ModelStruct(Structure):
    """The whole decoder."""

    _fields_ = (
        *((name, c_int64) for name in ("hidden", "inner", "heads", "kv_heads", "head_dim", "layer_count")),
        ("layers", POINTER(LayerStruct)),
        ("norm", c_void_p),
        ("head", POINTER(LinearStruct)),
        ("embedding", c_void_p),
        ("inverse_frequencies", c_void_p),
        ("norm_eps", c_float),
        ("rope_scale", c_float),
    )


class StepStruct(Structure):
    """One step: int64 arrays, but `pages` int32."""

    _fields_ = (
        *((name, c_int64) for name in ("tokens", "sequences", "outputs")),
        *((name, c_void_p) for name in ("token_ids", "positions", "first_rows", "first_pages", "pages", "output_rows")),
        ("pool", c_void_p),
        ("page_bytes", c_int64),
        ("kv_kind", c_int64),
        ("logits", c_void_p),
    )


class ChoiceStruct(Structure):
    """How one row is chosen from."""

    _fields_ = (
        *((name, c_double) for name in ("temperature", "top_p", "min_p", "number")),
        *((name, c_double) for name in ("repetition", "frequency", "presence")),
        *((name, c_int64) for name in ("top_k", "alternatives")),
        *(("tokens", c_void_p), ("token_count", c_int64), ("answered", c_int64)),
        *(("biased", c_void_p), ("biases", c_void_p), ("biased_count", c_int64)),
        *(("barred", c_void_p), ("barred_count", c_int64)),
    )


class ChosenStruct(Structure):
    """What was chosen: int64 and double arrays, one number a row, or `most` of the alternatives."""

    _fields_ = (
        *((name, c_void_p) for name in ("ids", "logprobs")),
        ("most", c_int64),
        *((name, c_void_p) for name in ("others", "other_logprobs")),
    )


PARTS: Final = ("embed", "norm", "qkv", "rope", "attend", "output", "gate_up", "down", "head")
"""Where the time of a step goes; enum Part."""
