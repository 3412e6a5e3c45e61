"""How long after a jump of the load the objectives are met again."""

from __future__ import annotations

from tandem_operator.simulation.ledger import Ledger, Verdict

WINDOW_S = 30
HOLD_S = 60
RECOVERED = 0.95


def recoveries(ledger: Ledger, steps_s: tuple[float, ...], end: float) -> tuple[float | None, ...]:
    """For each step: seconds until what arrives in every 30 s that begin within the next 60 s is met to 95 %.

    None when that does not come before the next step or the end.
    """
    if not steps_s:
        return ()
    size = int(end) + 1
    met, counted = [0] * (size + 1), [0] * (size + 1)
    for row, arrived in enumerate(ledger.arrived_s):
        if ledger.counts(row, end):
            second = min(int(arrived), size - 1) + 1
            counted[second] += 1
            met[second] += ledger.verdict[row] == Verdict.MET
    for second in range(1, size + 1):
        met[second] += met[second - 1]
        counted[second] += counted[second - 1]
    limits = [min(limit, end) for limit in (*steps_s[1:], end)]
    return tuple(_recovery(met, counted, int(step), int(limit)) for step, limit in zip(steps_s, limits, strict=True))


def _recovery(met: list[int], counted: list[int], step: int, limit: int) -> float | None:
    good_since = None
    for begin in range(step, limit - WINDOW_S):
        of_window = counted[begin + WINDOW_S] - counted[begin]
        good = met[begin + WINDOW_S] - met[begin] >= RECOVERED * of_window
        if not good:
            good_since = None
        elif good_since is None:
            good_since = begin
        if good_since is not None and begin - good_since >= HOLD_S:
            return float(good_since - step)
    return None
