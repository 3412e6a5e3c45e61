"""The fluid bound: work of every request at full use of every device, whole and by window of time.

A prompt costs its prefill seconds alone; a token costs its share of the largest step that its objective allows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from tandem_runtime.contracts.coefficients import Coefficients

from tandem_operator.simulation.scenario import Scenario
from tandem_operator.simulation.workload import Request


class Need(NamedTuple):
    """Pods that would be busy all of the time, per pool, in one window."""

    prefill: float
    decode: float


def prompt_seconds(coefficients: Coefficients, request: Request) -> float:
    """Of one prefill pod; what all pods hold already costs nothing. The step's constant is shared: left out."""
    new = max(request.prompt_tokens - request.cached_tokens, 1)
    return coefficients.prefill_seconds(new, request.cached_tokens) - coefficients.prefill.theta0_s


def token_seconds(coefficients: Coefficients, context: float, tpot_s: float) -> float:
    """Of one decode pod per token, in the largest batch that the objective, KV and sequences allow."""
    decode = coefficients.decode
    each = decode.phi1_s + decode.phi2_s * context
    batch = min(coefficients.max_sequences, coefficients.kv_tokens / max(context, 1.0))
    if math.isfinite(tpot_s) and each > 0:
        batch = min(batch, (tpot_s - decode.phi0_s) / each)
    return decode.phi0_s / max(batch, 1.0) + each


def decode_seconds(coefficients: Coefficients, request: Request, tpot_s: float) -> float:
    """Of one decode pod for all tokens but the first, which prefill makes."""
    tokens = max(request.output_tokens - 1, 0)
    return tokens * token_seconds(coefficients, request.prompt_tokens + request.output_tokens / 2, tpot_s)


def bound_gpu_h(scenario: Scenario, requests: Iterable[Request], tpot_s: float = math.inf) -> float:
    """GPU-hours below which nothing completes these requests, whatever the latency; with a TPOT, none that meets it."""
    fleet, settings = scenario.fleet, scenario.settings
    seconds = 0.0
    for request in requests:
        seconds += prompt_seconds(fleet.prefill, request) * settings.prefill.gpus
        seconds += decode_seconds(fleet.decode, request, tpot_s) * settings.decode.gpus
    return seconds / 3600.0


def needs(scenario: Scenario, requests: Iterable[Request], window_s: float) -> tuple[Need, ...]:
    """By window from 0 to the scenario's end. Decode work is spread over the time that the answer takes."""
    count = max(math.ceil(scenario.until_s / window_s - 1e-9), 1)
    prefill, decode = [0.0] * count, [0.0] * count
    tpots = {objective.name: objective.tpot_s for objective in scenario.settings.objectives}
    default = scenario.settings.objectives[0].tpot_s
    for request in requests:
        if request.arrived_s >= scenario.until_s:
            break
        tpot = tpots.get(request.slo_class, default)
        prefill[int(request.arrived_s / window_s)] += prompt_seconds(scenario.fleet.prefill, request)
        work = decode_seconds(scenario.fleet.decode, request, tpot)
        _spread(decode, work, request.arrived_s, request.output_tokens * tpot, window_s)
    return tuple(Need(p / window_s, d / window_s) for p, d in zip(prefill, decode, strict=True))


def _spread(windows: list[float], work: float, start_s: float, length_s: float, window_s: float) -> None:
    """Evenly over its length; what lies beyond the last window is left out."""
    first, last = int(start_s / window_s), int((start_s + length_s) / window_s)
    if first == last or length_s <= 0:
        windows[first] += work
        return
    for index in range(first, min(last + 1, len(windows))):
        inside = min(start_s + length_s, (index + 1) * window_s) - max(start_s, index * window_s)
        windows[index] += work * max(inside, 0.0) / length_s
