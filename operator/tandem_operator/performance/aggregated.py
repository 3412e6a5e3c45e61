"""TPOT and TTFT of a server that computes prompts and decodes in the same steps, as published measurements are taken.

`concurrency` clients send the next request when the last is answered. Pools have neither term that mixes: see roofline.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tandem_operator.performance.hardware import Hardware, Quantization
from tandem_operator.performance.least_squares import fit_relative
from tandem_operator.performance.memory import memory
from tandem_operator.performance.quantization import active_weight_bytes, arithmetic
from tandem_operator.performance.roofline import HOST_BUS_BYTES_PER_S, MAX_SEQUENCES, crosses_host_bus
from tandem_operator.performance.shape import ModelShape


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """What runs where."""

    shape: ModelShape
    hardware: Hardware
    tensor_parallel: int = 1
    quantization: Quantization = "None"
    kv_dtype_bytes: float = 2


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What the clients ask for."""

    prompt_tokens: int
    output_tokens: int
    concurrency: int


class Ideal(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds if every FLOP and byte per second of the device were used; the efficiencies are what is fitted."""

    running: float
    """Requests that memory lets run at once."""
    prompt_s: float
    """Arithmetic of one prompt."""
    prompt_link_s: float
    """All-reduces of one prompt, textbook traffic."""
    token_s: float
    """Arithmetic of one output token."""
    token_link_s: float
    read_s: float
    """Weights and the running requests' KV, read once."""
    layers: int
    prompts_per_step: float
    """Of `running` requests, prompts that come per step: one after every answer."""


class Efficiency(msgspec.Struct, frozen=True, kw_only=True):
    """How much longer than ideal each cause takes, and constants, all >= 0."""

    step_layer_s: float
    step_sequence_s: float
    compute: float
    read: float
    link: float
    first_layer_s: float
    first_prompt: float
    first_link: float
    queued_prompt: float
    """Of the prompts of all that run: what a prompt waits for others and they for it."""
    queued_link: float
    first_step: float
    """Steps that a prompt waits before its own begins."""
    room_wait: float
    """Of the wait for memory, when more ask than fit."""


def ideal(server: Server, load: Load) -> Ideal:
    """What physics alone would take."""
    shape, hardware, degree = server.shape, server.hardware, server.tensor_parallel
    prompt, output = load.prompt_tokens, load.output_tokens
    context = max(1, round(prompt + output / 2))
    plan = memory(
        shape, hardware, degree, server.quantization, context_tokens=context, kv_dtype_bytes=server.kv_dtype_bytes
    )
    running = max(1.0, min(load.concurrency, MAX_SEQUENCES, plan.kv_tokens / context))
    matrix = 2.0 * shape.active_parameters / (degree * arithmetic(shape, hardware, server.quantization).flops)
    pairs = sum(
        2.0 * group.layers * shape.heads * (group.key_dim + group.value_dim) * group.held_tokens(prompt)
        / (2 if group.window_tokens is None else 1)
        for group in shape.attention
    )  # fmt: skip
    ring = 2 * shape.layers * 2 * (degree - 1) / degree * shape.hidden * 2
    kv = sum(
        group.token_bytes(server.kv_dtype_bytes, degree) * group.held_tokens(context) for group in shape.attention
    ) + 2 * shape.state_bytes_per_sequence(degree)
    weights = active_weight_bytes(shape, server.quantization, round(running)) / degree
    link = hardware.interconnect.bytes_per_s
    if crosses_host_bus(hardware, degree) and not hardware.interconnect.is_host_bus:
        link = HOST_BUS_BYTES_PER_S
    return Ideal(
        running=running,
        prompt_s=prompt * (matrix + pairs / (degree * hardware.flops.half)),
        prompt_link_s=prompt * ring / link,
        token_s=matrix,
        token_link_s=ring / link,
        read_s=(weights + running * kv) / hardware.bandwidth_bytes_per_s,
        layers=shape.layers,
        prompts_per_step=running / max(1, output),
    )


def tpot_causes(physics: Ideal) -> tuple[float, ...]:
    """Features of the time between two tokens: a step with its share of others' prompts."""
    return (
        float(physics.layers),
        physics.running,
        physics.prompts_per_step * physics.prompt_s + physics.running * physics.token_s,
        physics.read_s,
        physics.prompts_per_step * physics.prompt_link_s + physics.running * physics.token_link_s,
    )


def ttft_causes(physics: Ideal, load: Load, step_s: float) -> tuple[float, ...]:
    """Features of the time to the first token; `step_s` is the TPOT of the same load."""
    waiting = max(0.0, load.concurrency - physics.running)
    return (
        float(physics.layers),
        physics.prompt_s,
        physics.prompt_link_s,
        physics.running * physics.prompt_s,
        physics.running * physics.prompt_link_s,
        step_s,
        waiting / physics.running * load.output_tokens * step_s,
    )


def tpot_seconds(efficiency: Efficiency, server: Server, load: Load) -> float:
    """Mean time between two output tokens of a request."""
    return _step(efficiency, ideal(server, load))


def ttft_seconds(efficiency: Efficiency, server: Server, load: Load) -> float:
    """Mean time from request to first token."""
    physics = ideal(server, load)
    causes = ttft_causes(physics, load, _step(efficiency, physics))
    e = efficiency
    weights = (
        e.first_layer_s, e.first_prompt, e.first_link, e.queued_prompt, e.queued_link, e.first_step, e.room_wait,
    )  # fmt: skip
    return sum(weight * cause for weight, cause in zip(weights, causes, strict=True))


def _step(e: Efficiency, physics: Ideal) -> float:
    weights = (e.step_layer_s, e.step_sequence_s, e.compute, e.read, e.link)
    return sum(weight * cause for weight, cause in zip(weights, tpot_causes(physics), strict=True))


def fit(servers: Sequence[Server], loads: Sequence[Load], tpot: Sequence[float], ttft: Sequence[float]) -> Efficiency:
    """The efficiency that measured seconds speak for. All four are equally long; raises ValueError when empty."""
    physics = [ideal(server, load) for server, load in zip(servers, loads, strict=True)]
    step = fit_relative([tpot_causes(each) for each in physics], tpot)
    layer, sequence, compute, read, link = step
    only_steps = Efficiency(
        step_layer_s=layer, step_sequence_s=sequence, compute=compute, read=read, link=link,
        first_layer_s=0, first_prompt=0, first_link=0, queued_prompt=0, queued_link=0, first_step=0, room_wait=0,
    )  # fmt: skip
    rows = [ttft_causes(p, load, _step(only_steps, p)) for p, load in zip(physics, loads, strict=True)]
    first = fit_relative(rows, ttft)
    return msgspec.structs.replace(
        only_steps,
        first_layer_s=first[0],
        first_prompt=first[1],
        first_link=first[2],
        queued_prompt=first[3],
        queued_link=first[4],
        first_step=first[5],
        room_wait=first[6],
    )
