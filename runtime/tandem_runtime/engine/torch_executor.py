"""The executor that computes: a model of the Llama family in torch, on a CPU or a GPU, over paged KV."""

from __future__ import annotations

import time
from hashlib import blake2b
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from tandem_runtime.contracts.kv_protocol import Layout
from tandem_runtime.contracts.sampling import Alternatives
from tandem_runtime.engine.compiled_sampler import sample_compiled
from tandem_runtime.engine.executor import (
    Capacity,
    ModelError,
    Plan,
    SequenceError,
    SequenceStep,
    StepResult,
    first_page,
)
from tandem_runtime.engine.kv_pool import KvPool
from tandem_runtime.engine.machine import available_memory_bytes, usable_cpus
from tandem_runtime.engine.native_batch import make_batch
from tandem_runtime.engine.sampler import Drawn, places_of, sample
from tandem_runtime.engine.torch_batch import run_alone, run_together
from tandem_runtime.models.config import ModelConfig, read_config
from tandem_runtime.models.llama import Llama
from tandem_runtime.models.loader import Checkpoint
from tandem_runtime.models.native import NativeModel, fits
from tandem_runtime.ops.kv_pages import plane_bytes
from tandem_runtime.ops.linear import bfloat16_is_fast_on_cpu
from tandem_runtime.ops.native import Native, load_native
from tandem_runtime.ops.packed import Packing

PAGE_TOKENS: Final = 32
"""A block of the prefix hash; small enough to waste little, large enough for one send per layer group."""
KV_BYTES_ON_CPU: Final = 2 << 30
"""Default ceiling; a context that needs more gets more."""
KV_SHARE_ON_CPU: Final = 0.25
"""Of the memory that is left: weights are loaded by then, the rest is for activations and the page cache."""
KV_SHARE_ON_GPU: Final = 0.85
SMALL_MODEL_BYTES: Final = 64 << 20
"""Below this a second thread waits longer at barriers than it saves."""
DTYPES: Final = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


class TorchExecutor:
    """`dtype` auto: the checkpoint's, but float32 on a CPU that has no fast form of it. `device`: auto, cpu, cuda.

    `deterministic`: float32, each sequence alone in fixed blocks; tokens depend on nothing but the prompt.
    bfloat16 on a CPU runs on the compiled kernels where there are any; `int8`: with weights and activations rounded.
    `kv_dtype` int8: keys and values are kept as int8, each token of each head with a scale of its own, so that what is
    read back depends on that token alone, in deterministic mode too; auto: as `dtype`.
    """

    def __init__(
        self,
        model_dir: Path,
        *,
        dtype: str = "auto",
        deterministic: bool = False,
        max_context_tokens: int | None = None,
        kv_memory_bytes: int | None = None,
        max_sequences: int = 64,
        device: str = "auto",
        int8: bool = False,
        kv_dtype: str = "auto",
    ) -> None:
        self._dir = model_dir
        self._dtype_name = dtype
        self._deterministic = deterministic
        self._max_context_tokens = max_context_tokens
        self._kv_memory_bytes = kv_memory_bytes
        self._max_sequences = max_sequences
        self._device_name = device
        self._int8 = int8
        self._kv_dtype_name = kv_dtype
        self._model: Llama | None = None
        self._native: NativeModel | None = None
        self._pool: KvPool | None = None

    def load(self) -> Capacity:
        """Loads weights and reserves the pages. Raises ModelError."""
        config = read_config(self._dir)
        context = self._choose_context(config)
        self._device = self._choose_device()
        packing = self._choose_packing(config)
        dtype = torch.bfloat16 if packing is not None else self._choose_dtype(config)
        if self._deterministic:
            torch.set_float32_matmul_precision("highest")
        checkpoint = Checkpoint(self._dir)
        try:
            with torch.inference_mode():
                self._model = Llama(config, checkpoint, dtype, self._device, packing)
                fingerprint = checkpoint.fingerprint()
        except torch.OutOfMemoryError as error:
            raise ModelError(f"{self._dir} does not fit into the memory of {self._device}: {error}") from error
        finally:
            checkpoint.close()
        few = packing is not None or self._model.weight_bytes < SMALL_MODEL_BYTES
        torch.set_num_threads(1 if few else usable_cpus())
        layout = make_layout(config, torch.int8 if self._kv_dtype_name == "int8" else dtype)
        pages = self._choose_pages(layout, context)
        self._pool = KvPool(layout, pages, dtype, self._device)
        if packing is not None:
            self._native = NativeModel(packing.native, self._model, self._pool.tensor)
        # int8 weights too: what they compute is another model's KV, and an answer must not hang on who computed it
        facts = f"{config.rope} {config.norm_eps} {config.windows} {layout} {dtype} {self._int8}"
        self.capacity = Capacity(
            pages=pages,
            page_tokens=PAGE_TOKENS,
            max_sequences=self._max_sequences,
            max_context_tokens=context,
            vocab_size=config.vocab_size,
            eos_token_ids=config.eos_token_ids,
            layout=layout,
            compat_hash=blake2b(facts.encode() + fingerprint, digest_size=16).hexdigest(),
            window_tokens=config.window_tokens,
            dtype=name_of(dtype),
            quantization="int8-dynamic" if self._int8 else "none",
        )
        return self.capacity

    def _choose_context(self, config: ModelConfig) -> int:
        wanted = self._max_context_tokens or config.max_context_tokens
        if wanted > config.max_context_tokens:
            raise ModelError(
                f"{self._dir / 'config.json'}: the model's context is {config.max_context_tokens} tokens, "
                f"{wanted} were asked for; lower --max-context-tokens"
            )
        return wanted

    def _choose_device(self) -> torch.device:
        name = self._device_name
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        if name.startswith("cuda") and not torch.cuda.is_available():
            raise ModelError(f"device {name} was asked for but torch {torch.__version__} sees no GPU")
        return torch.device(name)

    def _choose_dtype(self, config: ModelConfig) -> torch.dtype:
        name = self._dtype_name
        if self._deterministic:
            if name not in ("auto", "float32"):
                raise ModelError(f"deterministic mode computes in float32; {name} was asked for: leave one of them out")
            return torch.float32
        chosen = config.dtype if name == "auto" else name
        if chosen not in DTYPES:
            supported = ", ".join(DTYPES)
            raise ModelError(f"{self._dir / 'config.json'}: dtype {chosen!r}; supported are {supported}: set --dtype")
        if name != "auto":
            return DTYPES[name]
        slow = config.dtype == "float16" or not bfloat16_is_fast_on_cpu()
        return torch.float32 if self._device.type == "cpu" and slow else DTYPES[config.dtype]

    def _choose_packing(self, config: ModelConfig) -> Packing | None:
        """The compiled kernels for bfloat16 on a CPU; None: torch computes."""
        reason = self._unpackable(config)
        native = None if reason else load_native(usable_cpus())
        if native is None and self._int8:
            reason = reason or "there are no compiled kernels here (the log says why)"
            raise ModelError(f"int8-dynamic weights cannot be had: {reason}; set --quantization none")
        return None if native is None else Packing(native, self._int8)

    def _unpackable(self, config: ModelConfig) -> str:
        """Why the compiled kernels do not compute this model; empty when they can."""
        own = "bfloat16" if self._int8 else config.dtype  # rounding to int8 costs far more than the way to bfloat16
        wanted = own if self._dtype_name == "auto" else self._dtype_name
        if self._deterministic:
            return "deterministic mode computes in float32"
        if self._device.type != "cpu":
            return f"the kernels are for CPUs, the device is {self._device}"
        if wanted != "bfloat16":
            return f"the kernels take bfloat16 weights, these are {wanted}"
        return "" if fits(config) else f"the kernels take no head of {config.head_dim} columns"

    def _choose_pages(self, layout: Layout, context: int) -> int:
        need = -(-context // PAGE_TOKENS)
        if self._device.type == "cuda":
            available = torch.cuda.mem_get_info(self._device)[0]
            default = int(available * KV_SHARE_ON_GPU)
        else:
            available = available_memory_bytes()
            default = max(min(KV_BYTES_ON_CPU, int(available * KV_SHARE_ON_CPU)), need * layout.page_bytes)
        granted = default if self._kv_memory_bytes is None else self._kv_memory_bytes
        pages = min(granted // layout.page_bytes, need * self._max_sequences)
        if pages < need or pages * layout.page_bytes > available:
            raise ModelError(
                f"one context of {context} tokens needs {need * layout.page_bytes} bytes of KV; {granted} are set "
                f"aside for it and {available} bytes of memory are left: lower --max-context-tokens or give more memory"
            )
        return pages

    def execute(self, plan: Plan) -> StepResult:
        """Raises SequenceError for a sequence that asks for what cannot be, before anything is computed."""
        started = time.monotonic()
        model, pool, steps = self._loaded()[0], self._loaded()[1], plan.sequences
        for index, step in enumerate(steps):
            self._check(index, step)
        wanted = [step.sampling is not None for step in steps for _ in range(step.rows)]
        sampled = [row for row, is_wanted in enumerate(wanted) if is_wanted]
        ids: list[int | None] = [None] * len(wanted)
        logprobs: list[float | None] = [None] * len(wanted)
        alternatives: list[Alternatives] = []
        with torch.inference_mode():
            if self._native is not None:
                drawn = self._draw_native(self._native, plan) if steps else Drawn()
            else:
                drawn = self._draw(model, pool, plan, sampled)
        for row, token, logprob in zip(sampled, drawn.ids, drawn.logprobs, strict=True):
            ids[row], logprobs[row] = token, logprob
        if any(drawn.alternatives):
            alternatives = [[] for _ in ids]
            for row, likeliest in zip(sampled, drawn.alternatives, strict=True):
                alternatives[row] = likeliest
        return StepResult(ids, logprobs, time.monotonic() - started, alternatives)

    def _draw(self, model: Llama, pool: KvPool, plan: Plan, sampled: list[int]) -> Drawn:
        steps = plan.sequences
        if self._deterministic:
            hidden = torch.cat([run_alone(model, pool, step) for step in steps]) if steps else torch.empty(0)
            logits = [model.logits(hidden[row : row + 1]) for row in sampled]  # the shape decides the bits
        else:
            hidden = run_together(model, pool, steps, self._device) if steps else torch.empty(0)
            logits = [model.logits(hidden[sampled])] if sampled else []
        return self._sample(torch.cat(logits), plan) if sampled else Drawn()

    def _draw_native(self, native: NativeModel, plan: Plan) -> Drawn:
        logits = native.logits(make_batch(plan.sequences, PAGE_TOKENS))
        return sample_compiled(native.native, logits, places_of(plan.sequences), tuple(self.capacity.eos_token_ids))

    def _sample(self, logits: Tensor, plan: Plan) -> Drawn:
        """`logits`: of the rows that are sampled."""
        return sample(logits, places_of(plan.sequences), tuple(self.capacity.eos_token_ids))

    def _check(self, index: int, step: SequenceStep) -> None:
        capacity = self.capacity
        end = step.position + len(step.token_ids)
        if not step.token_ids or step.position < 0 or end > capacity.max_context_tokens:
            raise SequenceError(
                index,
                f"tokens {step.position} to {end} of a sequence; the context is {capacity.max_context_tokens} tokens",
            )
        if len(step.pages) * PAGE_TOKENS < end:
            raise SequenceError(index, f"{len(step.pages)} pages of {PAGE_TOKENS} tokens do not hold {end} tokens")
        seen = step.pages[first_page(step.position, capacity.window_tokens, PAGE_TOKENS) :]
        if not (min(seen) >= 0 and max(step.pages) < capacity.pages):
            raise SequenceError(index, f"pages {min(seen)} to {max(seen)}; there are {capacity.pages}")
        if not (min(step.token_ids) >= 0 and max(step.token_ids) < capacity.vocab_size):
            worst = max(step.token_ids, key=abs)
            raise SequenceError(index, f"token id {worst}; the model's vocabulary has {capacity.vocab_size}")

    def read_pages(self, pages: list[int], layer_first: int, layer_end: int) -> list[memoryview]:
        """Copies: a page may be another request's while they are on their way."""
        return self._loaded()[1].read(pages, layer_first, layer_end)

    def write_pages(self, pages: list[int], layer_first: int, layer_end: int, payloads: list[memoryview]) -> None:
        """The inverse of read_pages. Raises ValueError when a payload's size is wrong."""
        self._loaded()[1].write(pages, layer_first, layer_end, payloads)

    @property
    def native(self) -> Native | None:
        """The compiled kernels, where they compute this model."""
        return None if self._native is None else self._native.native

    def _loaded(self) -> tuple[Llama, KvPool]:
        if self._model is None or self._pool is None:
            raise ModelError("the executor is not loaded, or was closed")
        return self._model, self._pool

    def close(self) -> None:
        """Frees everything; the executor is not used again."""
        self._model = self._pool = self._native = None


def make_layout(config: ModelConfig, dtype: torch.dtype) -> Layout:
    """Pages of PAGE_TOKENS tokens for this model; `dtype`: what KV is kept in."""
    page_bytes = config.layers * 2 * config.kv_heads * plane_bytes(PAGE_TOKENS, config.head_dim, dtype)
    return Layout(config.layers, config.kv_heads, config.head_dim, PAGE_TOKENS, name_of(dtype), page_bytes)


def name_of(dtype: torch.dtype) -> str:
    """bfloat16, int8 ..."""
    return str(dtype).removeprefix("torch.")
