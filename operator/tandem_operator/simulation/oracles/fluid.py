"""What a load needs by window of time, in pods that would be busy all the time: fluid demand under the objective."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from tandem_runtime.contracts.coefficients import Coefficients

from tandem_operator.simulation.fluid import Work, best_batch, prefill_seconds
from tandem_operator.simulation.scenario import Scenario
from tandem_operator.simulation.workload import Request


class Need(NamedTuple):
    """Pods that would be busy all of the time, per pool, in one window."""

    prefill: float
    decode: float


def prompt_seconds(scenario: Scenario, request: Request, cached_tokens: int) -> float:
    """Of one prefill pod, at full steps; what pods hold already costs nothing."""
    new = max(request.prompt_tokens - cached_tokens, 1)
    work = Work(new, request.prompt_tokens, request.output_tokens)
    return prefill_seconds(scenario.fleet.prefill, work, scenario.fleet.step_tokens, convertible=False)


def decode_seconds(coefficients: Coefficients, request: Request, tpot_s: float) -> float:
    """Of one decode pod for all tokens but the first, in the largest batch that the objective allows."""
    context = request.prompt_tokens + request.output_tokens / 2
    batch = best_batch(coefficients, context, tpot_s)
    return max(request.output_tokens - 1, 0) * coefficients.step_seconds(batch, int(batch * context)) / batch


def needs(scenario: Scenario, requests: Iterable[Request], window_s: float) -> tuple[Need, ...]:
    """By window from 0 to the scenario's end. Decode work is spread over the time that the answer takes."""
    count = max(math.ceil(scenario.until_s / window_s - 1e-9), 1)
    prefill, decode = [0.0] * count, [0.0] * count
    tpots = {objective.name: objective.tpot_s for objective in scenario.settings.objectives}
    default = scenario.settings.objectives[0].tpot_s
    held: set[int] = set()
    for request in requests:
        if request.arrived_s >= scenario.until_s:
            break
        cached = request.cached_tokens
        if scenario.fleet.prefix_cache_tokens and request.blocks:
            cached = max(cached, _hit(request, held) * scenario.workload.block_tokens)
        tpot = tpots.get(request.slo_class, default)
        prefill[int(request.arrived_s / window_s)] += prompt_seconds(scenario, request, cached)
        work = decode_seconds(scenario.fleet.decode, request, tpot)
        _spread(decode, work, request.arrived_s, request.output_tokens * tpot, window_s)
    return tuple(Need(p / window_s, d / window_s) for p, d in zip(prefill, decode, strict=True))


def _hit(request: Request, held: set[int]) -> int:
    """Leading blocks that were seen before, as if every pod held all of them: an oracle may hope."""
    hit = 0
    for block in request.blocks:
        if block not in held:
            break
        hit += 1
    held.update(request.blocks)
    return hit


def _spread(windows: list[float], work: float, start_s: float, length_s: float, window_s: float) -> None:
    """Evenly over its length; what lies beyond the last window is left out."""
    first, last = int(start_s / window_s), int((start_s + length_s) / window_s)
    if first == last or length_s <= 0:
        windows[first] += work
        return
    for index in range(first, min(last + 1, len(windows))):
        inside = min(start_s + length_s, (index + 1) * window_s) - max(start_s, index * window_s)
        windows[index] += work * max(inside, 0.0) / length_s
