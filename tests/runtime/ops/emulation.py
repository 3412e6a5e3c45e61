"""The compiled kernels with the instructions of wide instruction sets emulated, for CPUs that lack them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Final

import pytest
from tandem_runtime.native.build import OPS, Library
from tandem_runtime.ops import native

INTRINSICS: Final = Path(__file__).with_name("emulated_intrinsics.h")
WIDE: Final = ("amx", "avx512_vnni_bf16")
"""Instruction sets that emulated_intrinsics.h has the instructions of; they round activations to bfloat16."""
LIBRARY: Final = Library(
    "tandem_ops_emulated",
    "ops",
    (
        *OPS.flags,
        "-O1",  # compiles in half the time
        "-Wno-psabi",
        f'-DTANDEM_INTRINSICS="{INTRINSICS}"',
        f"-DTANDEM_INTRINSICS_ARE=0x{blake2b(INTRINSICS.read_bytes(), digest_size=7).hexdigest()}",
    ),
)


@contextmanager
def emulated(instruction_set: str) -> Iterator[None]:
    """Inside, whoever loads kernels gets `instruction_set` emulated. Slow; verifies the source, not the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "OPS", LIBRARY)
        patch.setitem(os.environ, native.FORCE, instruction_set)
        native.load_native.cache_clear()
        try:
            yield
        finally:
            native.load_native.cache_clear()
