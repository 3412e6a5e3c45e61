"""Tensors of a checkpoint folder, mapped from safetensors files and checked before use."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tandem_runtime.models.errors import ModelError

INDEX: Final = "model.safetensors.index.json"
SINGLE: Final = "model.safetensors"
DTYPES: Final = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
DERIVED: Final = ("rotary_emb.inv_freq",)
"""Ends of names of tensors that older checkpoints store although config.json says the same."""
SAMPLE_BYTES: Final = 4096
"""Of the start, middle and end of each tensor go into the fingerprint: a fine-tune changes every one of them."""


class Checkpoint:
    """Tensors by name. Every method raises ModelError that names the file, the tensor, the numbers and what to do."""

    def __init__(self, model_dir: Path) -> None:
        self._dir = model_dir
        self._files: dict[Path, Any] = {}
        self._home = dict(self._locate())
        self._taken: set[str] = set()

    def _locate(self) -> Iterator[tuple[str, Path]]:
        index = self._dir / INDEX
        if not index.exists():
            single = self._dir / SINGLE
            if not single.exists():
                raise ModelError(f"{self._dir} holds neither {SINGLE} nor {INDEX}; convert the weights to safetensors")
            yield from ((name, single) for name in self._open(single).keys())  # noqa: SIM118 - no mapping
            return
        try:
            for name, file in json.loads(index.read_text())["weight_map"].items():
                if Path(file).name != file:
                    raise ModelError(f"{index} names {file!r}; shards are files beside it")
                yield name, self._dir / file
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ModelError(
                f"{index} is not an index of safetensors files ({error!r}); fetch the model again"
            ) from error

    def _open(self, path: Path) -> Any:
        if path not in self._files:
            if not path.is_file():
                raise ModelError(f"{path} is missing; fetch the model again")
            try:
                self._files[path] = safe_open(str(path), framework="pt")
            except (SafetensorError, OSError) as error:
                raise ModelError(f"{path} cannot be read: {_diagnose(path) or error}; fetch the model again") from error
        return self._files[path]

    def __contains__(self, name: str) -> bool:
        return name in self._home

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The tensor, still mapped from its file, in the file's dtype."""
        if name not in self._home:
            raise ModelError(
                f"{self._dir} has no tensor {name} {list(shape)} that config.json asks for; fetch the model again"
            )
        path = self._home[name]
        try:
            view = self._open(path).get_slice(name)
        except SafetensorError as error:
            raise ModelError(f"{path} has no tensor {name} although {INDEX} says so; fetch the model again") from error
        if (dtype := str(view.get_dtype())) not in DTYPES:
            supported = ", ".join(DTYPES)
            raise ModelError(
                f"{path}: tensor {name} has dtype {dtype}; supported are {supported}: convert the checkpoint"
            )
        if (found := tuple(view.get_shape())) != shape:
            raise ModelError(
                f"{path}: tensor {name} has shape {list(found)}, config.json asks for {list(shape)}; "
                "config.json and weights belong to different models"
            )
        tensor: Tensor = self._open(path).get_tensor(name)
        self._taken.add(name)
        return tensor

    def check_all_taken(self, tied_head: bool) -> None:
        """After the model is built: a tensor that nothing asked for (a bias, a norm) would change the numbers."""
        needless = {"lm_head.weight"} if tied_head else set()
        left = sorted(n for n in set(self._home) - self._taken - needless if not n.endswith(DERIVED))
        if left:
            raise ModelError(
                f"{self._dir} has {len(left)} tensors that config.json does not account for, the first is {left[0]}; "
                "this runtime would ignore them: use a model of a supported family as published"
            )

    def fingerprint(self) -> bytes:
        """16 bytes that change when a tensor's name, shape, dtype or content does; reads samples, not everything."""
        digest = blake2b(digest_size=16)
        for name in sorted(self._home):
            tensor = self._open(self._home[name]).get_tensor(name)
            digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}".encode())
            flat = tensor.reshape(-1).view(torch.uint8)
            for start in (0, flat.numel() // 2, max(0, flat.numel() - SAMPLE_BYTES)):
                digest.update(flat[start : start + SAMPLE_BYTES].numpy().tobytes())
        return digest.digest()

    def close(self) -> None:
        """Lets go of the files; tensors taken from them stay valid."""
        self._files.clear()


def _diagnose(path: Path) -> str:
    """Says in numbers why a safetensors file cannot be opened; empty when its lengths agree."""
    size = path.stat().st_size
    if size < 8:
        return f"it has {size} bytes, too few for a safetensors file"
    with path.open("rb") as file:
        (header_bytes,) = struct.unpack("<Q", file.read(8))
        if header_bytes > size - 8:
            return f"its header says {header_bytes} bytes but only {size - 8} follow (truncated, or not safetensors)"
        try:
            header = json.loads(file.read(header_bytes))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return "its header is not that of a safetensors file"
    want = 8 + header_bytes + max(ends, default=0)
    return "" if want == size else f"it should have {want} bytes and has {size}"
