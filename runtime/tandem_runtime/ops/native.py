"""The compiled kernels from Python, by ctypes (which lets go of the GIL). One instruction set is chosen per process."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from ctypes import Array, c_char_p, c_double, c_int32, c_int64, c_void_p
from functools import cache
from typing import Final

from torch import Tensor

from tandem_runtime.native.build import OPS, BuildError, find_library
from tandem_runtime.ops.native_structs import PARTS, ChoiceStruct, ChosenStruct, LinearStruct, ModelStruct, StepStruct

log = logging.getLogger(__name__)

INSTRUCTION_SETS: Final = ("amx", "avx512_vnni_bf16", "avx512", "avx2", "generic")
"""Best first. Set TANDEM_INSTRUCTION_SET to force one, `none` for plain torch.

The first two round activations to bfloat16, as torch does; the others keep them float32.
"""
FORCE: Final = "TANDEM_INSTRUCTION_SET"


class Native:
    """`instruction_set` and `threads` hold for the whole process. Raises BuildError when this CPU has it not."""

    def __init__(self, instruction_set: str, threads: int) -> None:
        self._library = library = ctypes.CDLL(str(find_library(OPS)))
        declare = {
            "tandem_choose": (c_int32, [c_char_p, c_int32]),
            "tandem_packed_bytes": (c_int64, [c_int64, c_int64, c_int32]),
            "tandem_pack": (None, [c_void_p, c_int64, c_int64, c_int32, c_int32, c_void_p, c_void_p]),
            "tandem_linear": (None, [c_void_p, c_void_p, c_int64, c_void_p]),
            "tandem_step": (None, [c_void_p, c_void_p]),
            "tandem_choose_rows": (None, [c_void_p, c_int64, c_int64, c_void_p, c_void_p]),
            "tandem_part_seconds": (None, [c_void_p, c_int32]),
            "tandem_read": (None, [c_void_p, c_int64]),
        }
        for name, (result, arguments) in declare.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        self._lock = threading.Lock()
        self.instruction_set = instruction_set
        self.threads = threads
        self.panel = int(library.tandem_choose(instruction_set.encode(), threads))
        if not self.panel:
            raise BuildError(f"this CPU cannot run the kernels for {instruction_set}")

    def packed_bytes(self, n: int, k: int, kind: int) -> int:
        """Size of a packed matrix [n, k]."""
        return int(self._library.tandem_packed_bytes(n, k, kind))

    def pack(self, weight: Tensor, kind: int, pairs: bool, data: Tensor, scales: Tensor | None) -> None:
        """bfloat16 [n, k], contiguous, into `data`; int8 fills `scales` too."""
        n, k = weight.shape
        with self._lock:
            address = None if scales is None else scales.data_ptr()
            self._library.tandem_pack(weight.data_ptr(), n, k, kind, pairs, data.data_ptr(), address)

    def linear(self, weight: LinearStruct, x: Tensor, out: Tensor) -> None:
        """float32 [rows, k], contiguous, into float32 [rows, n]; of pairs silu(gate) * up [rows, n / 2]."""
        with self._lock:
            self._library.tandem_linear(ctypes.addressof(weight), x.data_ptr(), x.shape[0], out.data_ptr())

    def step(self, model: ModelStruct, step: StepStruct) -> None:
        """One forward pass; see model.h."""
        with self._lock:
            self._library.tandem_step(ctypes.addressof(model), ctypes.addressof(step))

    def choose_rows(self, logits: Tensor, choices: Array[ChoiceStruct], chosen: ChosenStruct) -> None:
        """float32 [rows, vocab], contiguous, one choice for each row; see sampler.h."""
        rows, count = logits.shape
        with self._lock:
            self._library.tandem_choose_rows(
                logits.data_ptr(), rows, count, ctypes.addressof(choices), ctypes.addressof(chosen)
            )

    def part_seconds(self, reset: bool = False) -> dict[str, float]:
        """Seconds that steps spent in each part since the last reset."""
        seconds = (c_double * len(PARTS))()
        self._library.tandem_part_seconds(ctypes.addressof(seconds), reset)
        return dict(zip(PARTS, seconds, strict=True))

    def read(self, memory: Tensor) -> None:
        """Reads all of it with all threads: the bandwidth that there is."""
        self._library.tandem_read(memory.data_ptr(), memory.nbytes)


@cache
def load_native(threads: int, instruction_set: str = "") -> Native | None:
    """The best set that this CPU has, or the one asked for; None with a line in the log when there is none."""
    wanted = instruction_set or os.environ.get(FORCE, "")
    if wanted == "none":
        return None
    for name in (wanted,) if wanted else INSTRUCTION_SETS:
        try:
            return Native(name, threads)
        except (BuildError, OSError) as error:
            reason = error
    log.warning("no compiled kernels, plain torch computes: %s", reason)
    return None
