"""int8 KV from pod to pod: real pages through the state machines of the hand-off, and who is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.engine.torch_executor import TorchExecutor
from tandem_runtime.transfer.wire import mismatch

from tests.runtime.transfer.simulated import Clock, DecodePod, PrefillPod, Wire

PROMPT = [(7 * place) % 400 + 5 for place in range(100)]
ROUNDS = 300
"""Far more than an undisturbed network needs."""


def executor(model: Path, **options: Any) -> TorchExecutor:
    return TorchExecutor(model, device="cpu", max_context_tokens=160, kv_memory_bytes=1 << 20, **options)


def answer(model: Path, peer: int | None, **options: Any) -> tuple[list[int], DecodePod]:
    """Greedy tokens of a decode pod, with the prompt computed by a prefill pod where there is a `peer`."""
    clock, wires = Clock(), {0: Wire(0, "d1")}
    prefill = PrefillPod(clock, 0, executor=executor(model, **options))
    decode = DecodePod(clock, "d1", wires, executor=executor(model, **options))
    decode.submit(1, PROMPT, peer, 20)
    for _ in range(ROUNDS):
        decode.turn()
        while wires[0].to_prefill:
            prefill.hear(wires[0], wires[0].to_prefill.popleft())
        prefill.turn()
        prefill.pump()
        while wires[0].to_decode:
            decode.hear(wires[0], *wires[0].to_decode.popleft())
        if decode.ends:
            break
        clock.now += 0.01
    assert decode.ends == {1: 1}
    return decode.answers[1], decode


@pytest.mark.parametrize("mode", [{"deterministic": True}, {"dtype": "bfloat16"}, {"dtype": "float32"}])
def test_int8_pages_that_crossed_give_the_tokens_of_one_pod_alone(sample_model: Path, mode: dict[str, Any]) -> None:
    alone, _ = answer(sample_model, None, kv_dtype="int8", **mode)
    crossed, decode = answer(sample_model, 0, kv_dtype="int8", **mode)
    assert crossed == alone
    assert decode.completed == 1
    assert decode.stale == 0


def hello(model: Path, **options: Any) -> kv.Hello:
    capacity = executor(model, **options).load()
    facts = (kv.PROTO, capacity.compat_hash, "i", "prefill", "p", "secret", capacity.layout, 1 << 20)
    return kv.Hello(*facts, quantization=capacity.quantization)


def test_a_pod_without_int8_kv_is_refused_and_both_are_named(sample_model: Path) -> None:
    plain, int8 = (hello(sample_model, dtype="float32", kv_dtype=name) for name in ("auto", "int8"))
    assert int8.layout.page_bytes < plain.layout.page_bytes / 3
    words = "KV kept as float32, this pod's as int8: give both the same --dtype and --kv-dtype"
    assert mismatch(int8, plain) == words
    assert "KV kept as int8, this pod's as float32" in mismatch(plain, int8)
    assert mismatch(int8, hello(sample_model, dtype="float32", kv_dtype="int8")) == ""


def test_int8_pages_of_other_arithmetic_are_refused(sample_model: Path) -> None:
    one, other = (hello(sample_model, dtype=name, kv_dtype="int8") for name in ("float32", "float16"))
    assert one.layout == other.layout
    assert "compat hashes differ" in mismatch(one, other)


def test_pods_with_and_without_int8_weights_refuse_each_other_and_name_both(sample_model: Path) -> None:
    plain, int8 = (hello(sample_model, dtype="bfloat16", int8=name) for name in (False, True))
    assert plain.compat_hash != int8.compat_hash
    assert mismatch(plain, int8) == (
        "weights with quantization int8-dynamic, this pod's with none: give both the same --quantization"
    )
    assert "compat hashes differ" in mismatch(msgspec.structs.replace(plain, quantization="int8-dynamic"), int8)
