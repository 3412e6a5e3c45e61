"""Jumps of load that come again: after how long, so that what they need is still there when they do.

A start-up is longer than a burst: who lets pods go between two of them misses every one.
"""

from __future__ import annotations

from itertools import pairwise

from tandem_operator.scaling.demand import Demand
from tandem_operator.scaling.law import Law
from tandem_operator.scaling.state import Burst

KEPT = 16
"""Bursts: eight rounds of a large one and the small one with which work begins after a pause."""
COMPARABLE = 0.5
"""Of the highest rate: a burst below is another kind, and says nothing of when the high ones return."""
LATER = 1.25
"""Times the longest pause seen: the next one may be later than all before."""


def learn_bursts(bursts: tuple[Burst, ...], demand: Demand, now: float, law: Law) -> tuple[Burst, ...]:
    """With this look added. A burst is a fast rate that counts and is far above the minute's; what is old goes."""
    kept = tuple(burst for burst in bursts if now - burst.until <= 2 * law.regret_s)
    if not demand.known or demand.now_per_s <= law.panic_ratio * demand.medium_per_s:
        return kept
    if kept and now - kept[-1].until <= law.medium_s:
        last = kept[-1]
        return (*kept[:-1], Burst(last.at, now, max(last.per_s, demand.now_per_s)))
    return (*kept, Burst(now, now, demand.now_per_s))[-KEPT:]


def return_seconds(bursts: tuple[Burst, ...], now: float, law: Law) -> float:
    """Until so long after a burst the next may come; 0: none is expected, or it is overdue.

    A pause counts up to `regret_s`: pods that idle for longer cost more than the burst is worth.
    """
    if not law.expect_bursts or len(bursts) < 2:
        return 0.0
    high = COMPARABLE * max(burst.per_s for burst in bursts)
    alike = [burst for burst in bursts if burst.per_s >= high]
    pauses = [after.at - before.at for before, after in pairwise(alike)]
    pause_s = max((pause for pause in pauses if pause <= law.regret_s), default=0.0) * LATER
    return pause_s if now - alike[-1].until <= pause_s else 0.0
