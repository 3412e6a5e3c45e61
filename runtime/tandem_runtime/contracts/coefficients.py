"""Coefficients of the performance model: what the operator's model writes and the emulated executor reads.

prefill seconds = theta0 + theta1 n + theta2 n (context + n / 2); step seconds = phi0 + phi1 sequences + phi2 kv_tokens.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Final

import msgspec

SCHEMA: Final = 1
BUNDLED: Final = ("a100-sxm4-80gb", "h100-sxm", "l40s", "laptop")
"""Bundled files: an 8B dense model in bf16 on one such device; `laptop` is fast and small, for tests."""


class Prefill(msgspec.Struct, frozen=True):
    """Seconds: constant, per token, per token squared."""

    theta0_s: float
    theta1_s: float
    theta2_s: float


class Decode(msgspec.Struct, frozen=True):
    """Seconds: constant, per sequence, per token of KV in the batch."""

    phi0_s: float
    phi1_s: float
    phi2_s: float


class Link(msgspec.Struct, frozen=True):
    """KV link between a prefill and a decode pod."""

    setup_s: float
    bytes_per_s: float


class Coefficients(msgspec.Struct, frozen=True):
    """One model on one hardware class."""

    schema: int
    prefill: Prefill
    decode: Decode
    link: Link
    kv_bytes_per_token: int
    kv_tokens: int
    max_sequences: int
    load_s: float

    def with_terms(self, prefill: Prefill, decode: Decode) -> Coefficients:
        """The same model and hardware, other speeds."""
        return Coefficients(
            schema=self.schema,
            prefill=prefill,
            decode=decode,
            link=self.link,
            kv_bytes_per_token=self.kv_bytes_per_token,
            kv_tokens=self.kv_tokens,
            max_sequences=self.max_sequences,
            load_s=self.load_s,
        )

    def prefill_seconds(self, new_tokens: int, context_tokens: int = 0) -> float:
        """Seconds to compute `new_tokens` prompt tokens that follow `context_tokens` computed before."""
        attended = new_tokens * (context_tokens + new_tokens / 2)
        return self.prefill.theta0_s + self.prefill.theta1_s * new_tokens + self.prefill.theta2_s * attended

    def step_seconds(self, sequences: int, kv_tokens: int) -> float:
        """Seconds of one decode step of `sequences` sequences that hold `kv_tokens` tokens of KV together."""
        return self.decode.phi0_s + self.decode.phi1_s * sequences + self.decode.phi2_s * kv_tokens


def read_coefficients(name_or_file: str) -> Coefficients:
    """Raises ValueError naming the file, or the bundled names when there is no such file."""
    if name_or_file in BUNDLED:
        text = resources.files(__package__).joinpath("bundled", f"{name_or_file}.json").read_bytes()
    else:
        try:
            text = Path(name_or_file).read_bytes()
        except OSError as error:
            bundled = ", ".join(BUNDLED)
            raise ValueError(f"no coefficients file {name_or_file!r} ({error.strerror}); bundled: {bundled}") from error
    try:
        coefficients = msgspec.json.decode(text, type=Coefficients)
    except msgspec.DecodeError as error:
        raise ValueError(f"{name_or_file} is not a coefficients file: {error}") from error
    if coefficients.schema != SCHEMA:
        raise ValueError(f"{name_or_file} has schema {coefficients.schema}; this program reads schema {SCHEMA}")
    return coefficients
