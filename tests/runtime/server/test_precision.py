"""--quantization and --kv-dtype from the flag to the executor, the metrics and the answer; and what is refused."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

import pytest
from tandem_runtime.contracts.pod_protocol import Delta, Failed, Submit
from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.engine.client import EngineClient
from tandem_runtime.engine.executor import ModelError
from tandem_runtime.engine.torch_executor import TorchExecutor
from tandem_runtime.router import serve
from tandem_runtime.server.pod import Pod, PodIdentity
from tandem_runtime.server.settings import ConfigError, ServerSettings, add_arguments, read_settings
from tandem_runtime.server.signals import Probes
from tandem_runtime.telemetry.exposition import render
from tandem_runtime.text.tokenizer import load_tokenizer

PROMPT = [(7 * place) % 400 + 5 for place in range(70)]


def parsed(module: Any, *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    module(parser)
    return parser.parse_args(words)


def settings_of(*words: str, model: Path = Path("m"), role: str = "decode") -> ServerSettings:
    args = parsed(add_arguments, "--model", str(model), "--max-context-tokens", "256", *words)
    return read_settings(role, args)


async def answer(settings: ServerSettings) -> tuple[list[int], str, dict[str, Any]]:
    """Tokens of one request to a pod without ports, its metrics and its signals."""
    assert settings.model is not None
    engine = EngineClient(settings.make_executor(), settings.scheduler())
    await engine.load()
    identity = PodIdentity("p", "both", "r", "i", "127.0.0.1", lambda: "", "m")
    pod = Pod(identity, engine, load_tokenizer(settings.model))
    ids: list[int] = []
    ended = asyncio.Event()

    def reply(message: Delta | Failed) -> None:
        assert isinstance(message, Delta), message
        ids.extend(message.ids)
        if message.finish_reason is not None:
            ended.set()

    try:
        assert pod.submit(Submit("a", 0, PROMPT, Sampling(24, ignore_eos=True), remaining_ms=60_000), reply)
        async with asyncio.timeout(60):
            await ended.wait()
        probes = Probes()
        probes.pod = pod
        return ids, render(probes.metrics()).decode(), probes.signals()
    finally:
        pod.stop()


@pytest.mark.parametrize(
    ("words", "want"),
    [
        (("--dtype", "bfloat16"), {"dtype": "bfloat16", "quantization": "none", "kv_dtype": "bfloat16"}),
        (
            ("--quantization", "int8-dynamic"),
            {"dtype": "bfloat16", "quantization": "int8-dynamic", "kv_dtype": "bfloat16"},
        ),
        (
            ("--quantization", "int8-dynamic", "--kv-dtype", "int8"),
            {"dtype": "bfloat16", "quantization": "int8-dynamic", "kv_dtype": "int8"},
        ),
        (("--deterministic", "--kv-dtype", "int8"), {"dtype": "float32", "quantization": "none", "kv_dtype": "int8"}),
    ],
)
async def test_a_pod_answers_with_what_its_flags_ask_for_and_shows_it(
    sample_model: Path, words: tuple[str, ...], want: dict[str, str]
) -> None:
    ids, metrics, signals = await answer(settings_of(*words, model=sample_model, role="both"))
    assert len(ids) == 24
    assert {name: signals[name] for name in want} == want
    labels = ",".join(f'{name}="{value}"' for name, value in want.items())
    assert f"tandem_engine_precision_info{{{labels}}} 1" in metrics


def test_without_flags_weights_and_kv_are_as_the_checkpoint_has_them() -> None:
    precision = settings_of().precision
    assert (precision.dtype, precision.quantization, precision.kv_dtype) == ("auto", "none", "auto")
    assert precision.flags() == []


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (
            ("--deterministic",),
            "--quantization int8-dynamic rounds, --deterministic computes in float32: leave one out",
        ),
        (("--dtype", "float32"), "--quantization int8-dynamic rounds bfloat16 weights; leave --dtype float32 out"),
        (("--executor", "emulated"), "need --executor torch; --executor emulated has no weights"),
    ],
)
def test_flags_that_cannot_go_together_are_refused_before_anything_is_loaded(
    words: tuple[str, ...], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        settings_of("--quantization", "int8-dynamic", *words)


def test_int8_weights_are_refused_where_there_is_no_kernel_or_no_bfloat16(
    sample_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusal(**options: Any) -> str:
        with pytest.raises(ModelError) as error:
            TorchExecutor(sample_model, max_context_tokens=64, int8=True, **options).load()
        return str(error.value)

    prefix = "int8-dynamic weights cannot be had: "
    assert refusal(device="cpu", dtype="float16").startswith(
        f"{prefix}the kernels take bfloat16 weights, these are float16"
    )
    assert refusal(device="cpu", deterministic=True).startswith(f"{prefix}deterministic mode computes in float32")
    monkeypatch.setattr("tandem_runtime.engine.torch_executor.load_native", lambda threads: None)
    assert refusal(device="cpu") == (
        f"{prefix}there are no compiled kernels here (the log says why); set --quantization none"
    )
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert refusal(device="cuda").startswith(f"{prefix}the kernels are for CPUs, the device is cuda")


def test_serve_hands_both_to_its_pods_alone(tmp_path: Path) -> None:
    given = ("--quantization", "int8-dynamic", "--kv-dtype", "int8")
    args = parsed(serve.add_arguments, "--model", "m", *given)
    router, *pods = serve.make_children(args, serve.make_plan(8000, 1, 1), tmp_path)
    assert "--quantization" not in router._arguments
    assert len(pods) == 2
    for pod in pods:
        assert " ".join(given) in " ".join(pod._arguments)
