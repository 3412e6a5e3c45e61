"""Flags that say how weights and KV are held, of a pod and of `serve`, and which of them go together."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Final

DTYPES: Final = ("auto", "bfloat16", "float32", "float16")
QUANTIZATIONS: Final = ("none", "int8-dynamic")
"""int8-dynamic: W8A8, spec.model.quantization Int8Dynamic; the head stays bfloat16."""
KV_DTYPES: Final = ("auto", "int8")


@dataclass(frozen=True, slots=True)
class Precision:
    """`dtype` of weights and arithmetic; `kv_dtype` auto: the same."""

    dtype: str = "auto"
    quantization: str = "none"
    kv_dtype: str = "auto"

    def complaint(self, executor: str, deterministic: bool) -> str:
        """Why these cannot go together; empty when they can."""
        if executor != "torch" and (self.quantization != "none" or self.kv_dtype != "auto"):
            return f"--quantization and --kv-dtype need --executor torch; --executor {executor} has no weights"
        if self.quantization == "none":
            return ""
        if deterministic:
            return f"--quantization {self.quantization} rounds, --deterministic computes in float32: leave one out"
        if self.dtype not in ("auto", "bfloat16"):
            return f"--quantization {self.quantization} rounds bfloat16 weights; leave --dtype {self.dtype} out"
        return ""

    def flags(self) -> list[str]:
        """As `serve` hands them to its pods: only those that are not the default."""
        given = {"--dtype": self.dtype, "--quantization": self.quantization, "--kv-dtype": self.kv_dtype}
        return [word for flag, value in given.items() if value not in ("auto", "none") for word in (flag, value)]


def add_precision_arguments(parser: argparse.ArgumentParser) -> None:
    """The same for all who take them."""
    parser.add_argument(
        "--dtype", choices=DTYPES, default="auto", help="of weights and KV (auto: the model's; int8-dynamic: bfloat16)"
    )
    parser.add_argument(
        "--quantization",
        choices=QUANTIZATIONS,
        default="none",
        help="int8-dynamic: weights and activations in 8 bit, on a CPU with the compiled kernels (default: none)",
    )
    parser.add_argument(
        "--kv-dtype",
        choices=KV_DTYPES,
        default="auto",
        help="int8: nearly twice the tokens in the same memory; pods that exchange KV need the same (auto: as --dtype)",
    )


def read_precision(args: argparse.Namespace) -> Precision:
    """What the flags say; `Precision.complaint` says whether it can be."""
    return Precision(args.dtype, args.quantization, args.kv_dtype)
