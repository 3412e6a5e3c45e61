"""From what happened to what it was worth."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from math import isnan

from tandem_operator.simulation.fleet import Fleet
from tandem_operator.simulation.fluid import Work, decode_seconds, prefill_seconds
from tandem_operator.simulation.ledger import Ledger, Verdict
from tandem_operator.simulation.outcome import Move, Outcome, Quantiles
from tandem_operator.simulation.recovery import recoveries
from tandem_operator.simulation.scenario import Scenario
from tandem_operator.simulation.series import make_series, wrong_ratio_seconds
from tandem_operator.simulation.watch import Watch

HOUR = 3600.0


def measure(
    scenario: Scenario, name: str, seed: int, fleet: Fleet, watch: Watch, moves: list[Move], decisions_s: list[float]
) -> Outcome:
    """Raises AssertionError when the books of the run do not balance: that is a defect of the simulator."""
    ledger, start, end = fleet.ledger, scenario.report_from_s, scenario.until_s
    first = bisect_left(ledger.arrived_s, start)
    rows = range(first, len(ledger))
    verdicts = ledger.verdict
    told = verdicts[first:]
    counts = [told.count(verdict) for verdict in Verdict]
    counted, met_tokens, counted_tokens, classes = _attained(ledger, rows, end)
    blind = [row for row in rows if any(a <= ledger.arrived_s[row] < b for a, b in scenario.blind_s)]
    blind_counted = _attained(ledger, blind, end)[0]
    hours = {pool.role: _gpu_hours(fleet, pool.role, start, end) for pool in (fleet.prefill, fleet.decode)}
    gpu_h = sum(hours.values())
    met = counts[Verdict.MET]
    _check(scenario, fleet)
    series = make_series(scenario, ledger, watch, end)
    late_moves = [move for move in moves if move.at_s >= start]
    return Outcome(
        scenario=scenario.name,
        policy=name,
        seed=seed,
        seconds=end - start,
        arrivals=len(rows),
        completed=met + counts[Verdict.MISSED],
        shed=counts[Verdict.SHED],
        failed=counts[Verdict.FAILED],
        in_flight=counts[Verdict.IN_FLIGHT],
        met=met,
        attainment=met / counted if counted else 1.0,
        token_attainment=met_tokens / counted_tokens if counted_tokens else 1.0,
        class_attainment=classes,
        blind_attainment=sum(verdicts[row] == Verdict.MET for row in blind) / blind_counted if blind_counted else None,
        completion=(met + counts[Verdict.MISSED]) / counted if counted else 1.0,
        goodput_per_s=met / (end - start),
        gpu_h=gpu_h,
        prefill_gpu_h=hours["prefill"],
        decode_gpu_h=hours["decode"],
        goodput_per_gpu_h=met / gpu_h if gpu_h else 0.0,
        fluid_gpu_h=fluid_gpu_hours(scenario, fleet, rows),
        ttft_s=quantiles(ledger.ttft_s[first:]),
        tpot_s=quantiles(ledger.tpot_s[first:]),
        recovery_s=recoveries(ledger, scenario.steps_s, end),
        churn=_churn(scenario, late_moves, moves),
        reversals_per_h=_reversals(scenario, moves) * HOUR / (end - start),
        scale_ups=sum(at >= start for at in fleet.supply.created),
        scale_downs=sum(at >= start for at in fleet.supply.removed),
        scale_downs_blind=sum(any(a <= at < b for a, b in scenario.blind_s) for at in fleet.supply.removed),
        flips=sum(at >= start for at in fleet.supply.flipped),
        wasted_startups=sum(at >= start for at in fleet.supply.wasted),
        lost_at_grace=fleet.lost_at_grace,
        preemptions=fleet.preemptions,
        converted=fleet.converted,
        cached_tokens=sum(ledger.prompt_tokens[first:]) - sum(ledger.computed_tokens[first:]),
        wrong_ratio_s=wrong_ratio_seconds(series, start),
        decision_p50_ms=quantile(sorted(decisions_s), 0.5) * 1e3,
        decision_p99_ms=quantile(sorted(decisions_s), 0.99) * 1e3,
        series=series,
        moves=tuple(moves),
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """Nearest rank; 0 of nothing."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def quantiles(values: Iterable[float]) -> Quantiles:
    """Of those that are known."""
    known = sorted([value for value in values if not isnan(value)])
    return Quantiles(quantile(known, 0.5), quantile(known, 0.9), quantile(known, 0.99))


def fluid_gpu_hours(scenario: Scenario, fleet: Fleet, rows: Sequence[int], completed_only: bool = False) -> float:
    """Device-hours that this load needs at the very least."""
    ledger, truth = fleet.ledger, scenario.fleet
    done = (Verdict.MET, Verdict.MISSED)
    works = [
        Work(ledger.computed_tokens[row], ledger.prompt_tokens[row], ledger.output_tokens[row])
        for row in rows
        if not completed_only or ledger.verdict[row] in done
    ]
    prefill_s = 0.0
    for work in works:
        prefill_s += prefill_seconds(truth.prefill, work, truth.step_tokens, fleet.router.convertible)
    return (prefill_s * fleet.gpus[0] + decode_seconds(truth.decode, works) * fleet.gpus[1]) / HOUR


def _attained(ledger: Ledger, rows: Iterable[int], end: float) -> tuple[int, int, int, dict[str, float]]:
    counted = met_tokens = counted_tokens = 0
    by_class = {name: [0, 0] for name in ledger.classes}
    for row in rows:
        if not ledger.counts(row, end):
            continue
        counted += 1
        tokens = ledger.output_tokens[row]
        counted_tokens += tokens
        of_class = by_class[ledger.classes[ledger.slo_class[row]]]
        of_class[1] += 1
        if ledger.verdict[row] == Verdict.MET:
            met_tokens += tokens
            of_class[0] += 1
    return counted, met_tokens, counted_tokens, {name: met / all_ for name, (met, all_) in by_class.items() if all_}


def _gpu_hours(fleet: Fleet, role: str, start: float, end: float) -> float:
    bills = [bill for bill in fleet.supply.bills if bill.role == role]
    return sum(bill.gpus * max(0.0, min(bill.to_s, end) - max(bill.from_s, start)) for bill in bills) / HOUR


def _churn(scenario: Scenario, counted: list[Move], moves: list[Move]) -> int:
    before = [(scenario.prefill_start, scenario.decode_start), *((move.prefill, move.decode) for move in moves)]
    skipped = len(moves) - len(counted)
    pairs = zip(before[skipped:], before[skipped + 1 :], strict=False)
    return sum(abs(a[0] - b[0]) + abs(a[1] - b[1]) for a, b in pairs)


def _reversals(scenario: Scenario, moves: list[Move]) -> int:
    """Changes of direction of either target, in the reported part."""
    found = 0
    for pick, begin in ((0, scenario.prefill_start), (1, scenario.decode_start)):
        last, direction = begin, 0
        for move in moves:
            want = (move.prefill, move.decode)[pick]
            sign = (want > last) - (want < last)
            last = want
            if sign and direction and sign != direction and move.at_s >= scenario.report_from_s:
                found += 1
            direction = sign or direction
    return found


def _check(scenario: Scenario, fleet: Fleet) -> None:
    """Every request is somewhere, and none was served for less than it takes."""
    ledger = fleet.ledger
    inside = ledger.verdict.count(Verdict.IN_FLIGHT)
    if inside != fleet.inside():
        raise AssertionError(f"{inside} requests have not ended, the fleet holds {fleet.inside()}")
    bound = fluid_gpu_hours(scenario, fleet, range(len(ledger)), completed_only=True)
    spent = sum(_gpu_hours(fleet, pool.role, 0.0, scenario.until_s) for pool in (fleet.prefill, fleet.decode))
    if spent < bound * (1 - 1e-9):
        raise AssertionError(f"{spent:.3f} GPU-hours were spent, the completed requests take {bound:.3f} at least")
