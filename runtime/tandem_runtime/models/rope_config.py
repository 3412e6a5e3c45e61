"""Rotary embedding as config.json describes it, in both spellings; a scaling that is not computed is refused."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

ROPE_TYPES: Final = ("default", "linear", "llama3", "yarn")
KNOWN_FIELDS: Final = {
    "default": frozenset[str](),
    "linear": frozenset({"factor"}),
    "llama3": frozenset({"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}),
    "yarn": frozenset(
        {"factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale"}
        | {"mscale_all_dim", "truncate"}
    ),
}
NEUTRAL_FIELDS: Final[dict[str, Any]] = {"partial_rotary_factor": 1.0, "finetuned": None}
"""Change nothing at this value; `finetuned` is a remark at any value."""


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary embedding. Which fields count depends on `kind`; lengths in tokens."""

    theta: float = 10000.0
    kind: str = "default"
    factor: float = 1.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_context_tokens: int = 8192
    attention_factor: float = 1.0
    """By which cosine and sine are multiplied (yarn)."""
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True


def read_rope(raw: dict[str, Any]) -> Rope:
    """rope_theta beside rope_scaling, or the later rope_parameters that holds all. Raises ValueError for people."""
    name = "rope_parameters" if raw.get("rope_parameters") else "rope_scaling"
    settings = raw.get(name) or {}
    if not isinstance(settings, dict):
        raise ValueError(f"{name} is {settings!r}; an object is needed")
    kind = settings.get("rope_type", settings.get("type", "default"))
    if kind not in ROPE_TYPES:
        raise ValueError(f"{name}.rope_type is {kind!r}, which is not supported; supported are {', '.join(ROPE_TYPES)}")
    honoured = KNOWN_FIELDS[kind] | {"rope_theta", "rope_type", "type"}
    for field, value in settings.items():
        if field not in honoured and not _is_neutral(field, value, kind):
            raise ValueError(f"{name}.{field} is {value!r:.100}, which RoPE of type {kind!r} does not honour here")
    try:
        theta = _positive(settings, "rope_theta", raw.get("rope_theta") or 10000.0)
        if kind == "default":
            return Rope(theta)
        if kind == "linear":
            return Rope(theta, kind, _positive(settings, "factor"))
        original = raw.get("original_max_position_embeddings") or settings.get("original_max_position_embeddings")
        tokens = int(original or raw["max_position_embeddings"])
        if kind == "llama3":
            low, high = _positive(settings, "low_freq_factor"), _positive(settings, "high_freq_factor")
            return Rope(theta, kind, _positive(settings, "factor"), low, high, tokens)
        return _read_yarn(settings, theta, tokens, int(raw["max_position_embeddings"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name} of type {kind!r} lacks a usable {error}") from error


def _read_yarn(settings: dict[str, Any], theta: float, original_tokens: int, context_tokens: int) -> Rope:
    """Defaults as transformers has them, of whom checkpoints are made."""
    factor = _positive(settings, "factor", context_tokens / original_tokens)
    attention, mscale, all_dim = (settings.get(name) for name in ("attention_factor", "mscale", "mscale_all_dim"))
    if attention is None:
        attention = _yarn_scale(factor)
        if mscale and all_dim:
            attention = _yarn_scale(factor, mscale) / _yarn_scale(factor, all_dim)
    return Rope(
        theta,
        "yarn",
        factor,
        original_context_tokens=original_tokens,
        attention_factor=float(attention),
        beta_fast=_positive(settings, "beta_fast", 32.0),
        beta_slow=_positive(settings, "beta_slow", 1.0),
        truncate=bool(settings.get("truncate", True)),
    )


def _yarn_scale(factor: float, mscale: float = 1.0) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def _positive(settings: dict[str, Any], field: str, default: float | None = None) -> float:
    value = settings.get(field)
    if value is None and default is not None:
        return float(default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise ValueError(f"{field!r} (it is {value!r})")
    return float(value)


def _is_neutral(field: str, value: Any, kind: str) -> bool:
    if value is None or field == "finetuned":
        return True
    if field in NEUTRAL_FIELDS:
        return bool(value == NEUTRAL_FIELDS[field])
    # A scaling written beside `default` asks for nothing: the type decides, as in transformers.
    return kind == "default" and any(field in known for known in KNOWN_FIELDS.values())
