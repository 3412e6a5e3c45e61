"""What a workload asks of the pools, by window: pods that it would keep busy all the time."""

from __future__ import annotations

from math import ceil

from tandem_operator.simulation.fluid import Work, best_batch, prefill_seconds
from tandem_operator.simulation.scenario import Scenario

WINDOW_S = 60.0
SEED = 0


def busy_pods(scenario: Scenario, seed: int = SEED, window_s: float = WINDOW_S) -> list[tuple[float, float]]:
    """Prefill and decode, one pair per window."""
    truth = scenario.fleet
    tpot_s = scenario.settings.objectives[0].tpot_s
    windows = [[0.0, 0.0] for _ in range(ceil(scenario.until_s / window_s) + 1)]
    for request in scenario.requests(seed):
        window = windows[min(len(windows) - 1, int(request.arrived_s / window_s))]
        computed = request.prompt_tokens - request.cached_tokens
        work = Work(computed, request.prompt_tokens, request.output_tokens)
        window[0] += prefill_seconds(truth.prefill, work, truth.step_tokens, convertible=False)
        context = request.prompt_tokens + request.output_tokens / 2
        batch = best_batch(truth.decode, context, tpot_s)
        step_s = truth.decode.step_seconds(batch, int(batch * context))
        window[1] += (request.output_tokens - 1) * step_s / batch
    return [(prefill / window_s, decode / window_s) for prefill, decode in windows]


def peak_pods(scenario: Scenario) -> int:
    """Whole pods of both pools in the heaviest window."""
    return max(ceil(prefill) + ceil(decode) for prefill, decode in busy_pods(scenario))
