"""Columns for the plots, and what is read off them."""

from __future__ import annotations

from bisect import bisect_right
from math import ceil, isnan

from tandem_operator.simulation.fluid import best_batch
from tandem_operator.simulation.ledger import Ledger, Verdict
from tandem_operator.simulation.outcome import Series
from tandem_operator.simulation.scenario import Scenario
from tandem_operator.simulation.watch import Watch

NEED_WINDOW_S = 60.0
"""The load mix's need is a mean over so long: single requests are no mix."""
CONTEXT_GRAIN = 32
"""Tokens: contexts that close are decoded at one speed here."""
FULL = 0.95
"""A pool that is busier than that is short of pods."""


class Bin:
    """Requests that arrived in one step of the series."""

    __slots__ = ("arrivals", "counted", "decode_s", "met", "prefill_s", "tpot_s", "ttft_s")

    def __init__(self) -> None:
        self.arrivals = 0
        self.counted = 0
        self.met = 0
        self.prefill_s = 0.0
        self.decode_s = 0.0
        self.ttft_s: list[float] = []
        self.tpot_s: list[float] = []


def make_series(scenario: Scenario, ledger: Ledger, watch: Watch, end: float) -> Series:
    """One row per sight."""
    sights, step_s = watch.sights, watch.step_s
    bins = [Bin() for _ in sights]
    _fill(scenario, ledger, bins, step_s, end)
    prefill = _smooth([bin_.prefill_s / step_s for bin_ in bins], step_s, scenario.steps_s)
    decode = _smooth([bin_.decode_s / step_s for bin_ in bins], step_s, scenario.steps_s)
    for bin_ in bins:
        bin_.ttft_s.sort()
        bin_.tpot_s.sort()
    return Series(
        step_s=step_s,
        t_s=tuple(sight.t_s for sight in sights),
        arrivals_per_s=tuple(bin_.arrivals / step_s for bin_ in bins),
        queue_requests=tuple(sight.queue_requests for sight in sights),
        queue_tokens=tuple(sight.queue_tokens for sight in sights),
        prefill_ready=tuple(sight.prefill_ready for sight in sights),
        prefill_want=tuple(sight.prefill_want for sight in sights),
        prefill_pods=tuple(sight.prefill_pods for sight in sights),
        decode_ready=tuple(sight.decode_ready for sight in sights),
        decode_want=tuple(sight.decode_want for sight in sights),
        decode_pods=tuple(sight.decode_pods for sight in sights),
        prefill_needed=tuple(round(need, 4) for need in prefill),
        decode_needed=tuple(round(need, 4) for need in decode),
        running=tuple(sight.running for sight in sights),
        gpus=tuple(sight.gpus for sight in sights),
        attainment=tuple(bin_.met / bin_.counted if bin_.counted else None for bin_ in bins),
        ttft_p50_s=tuple(_at(bin_.ttft_s, 0.5) for bin_ in bins),
        ttft_p99_s=tuple(_at(bin_.ttft_s, 0.99) for bin_ in bins),
        tpot_p50_s=tuple(_at(bin_.tpot_s, 0.5) for bin_ in bins),
        tpot_p99_s=tuple(_at(bin_.tpot_s, 0.99) for bin_ in bins),
    )


def wrong_ratio_seconds(series: Series, start: float) -> float:
    """Time in which one pool was short of what the load mix needs while the other had a pod to spare."""
    seconds = 0.0
    rows = zip(
        series.t_s, series.prefill_ready, series.prefill_needed, series.decode_ready, series.decode_needed, strict=True
    )
    for at, prefill, prefill_need, decode, decode_need in rows:
        short = (prefill * FULL < prefill_need, decode * FULL < decode_need)
        spare = ((prefill - 1) * FULL >= prefill_need, (decode - 1) * FULL >= decode_need)
        if at >= start and ((short[0] and spare[1]) or (short[1] and spare[0])):
            seconds += series.step_s
    return seconds


def _fill(scenario: Scenario, ledger: Ledger, bins: list[Bin], step_s: float, end: float) -> None:
    truth, tpot_s = scenario.fleet, scenario.settings.objectives[0].tpot_s
    theta = truth.prefill.prefill
    last = len(bins) - 1
    token_seconds: dict[int, float] = {}
    for row, arrived in enumerate(ledger.arrived_s):
        bin_ = bins[min(last, int(arrived / step_s))]
        bin_.arrivals += 1
        if ledger.counts(row, end):
            bin_.counted += 1
            bin_.met += ledger.verdict[row] == Verdict.MET
        computed, prompt, output = ledger.computed_tokens[row], ledger.prompt_tokens[row], ledger.output_tokens[row]
        bin_.prefill_s += computed * (theta.theta1_s + theta.theta2_s * (prompt - computed / 2))
        grain = (2 * prompt + output) // (2 * CONTEXT_GRAIN)
        token_s = token_seconds.get(grain)
        if token_s is None:
            context = (grain + 0.5) * CONTEXT_GRAIN
            batch = best_batch(truth.decode, context, tpot_s)
            token_s = token_seconds[grain] = truth.decode.step_seconds(batch, int(batch * context)) / batch
        bin_.decode_s += (output - 1) * token_s
        if not isnan(ledger.ttft_s[row]):
            bin_.ttft_s.append(ledger.ttft_s[row])
        if not isnan(ledger.tpot_s[row]):
            bin_.tpot_s.append(ledger.tpot_s[row])


def _smooth(values: list[float], step_s: float, jumps_s: tuple[float, ...]) -> list[float]:
    """Mean of the window around each, which does not reach over a jump of the load: nobody needs before what comes
    after. A row in the middle of which the load jumps stands for itself."""
    half = max(0, int(NEED_WINDOW_S / step_s / 2))
    edges = sorted({0, len(values), *(edge for at in jumps_s for edge in (int(at / step_s), ceil(at / step_s)))})
    means = []
    for index in range(len(values)):
        after = bisect_right(edges, index)
        window = values[max(edges[after - 1], index - half) : min(edges[after], index + half + 1)]
        means.append(sum(window) / len(window))
    return means


def _at(ordered: list[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
