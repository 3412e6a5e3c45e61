"""When a size that is wanted becomes a size that is given: up by evidence or at once, down after a hold."""

from __future__ import annotations

import msgspec

from tandem_operator.scaling.law import Law
from tandem_operator.scaling.state import PoolMemory


class Step(msgspec.Struct, frozen=True):
    """The size to have now, what to remember, and why it is not what is wanted."""

    size: int
    memory: PoolMemory
    reason: str = ""


def hold_seconds(lead_s: float, memory: PoolMemory, law: Law) -> float:
    """Ski rental: keeping a pod costs idle time, letting it go costs a start-up; hold until both are equal."""
    return max(lead_s * (1 + law.violation_over_idle), law.hold_floor_s) * memory.hold_factor


def step(
    memory: PoolMemory,
    current: int,
    up: int,
    down: tuple[int, int],
    *,
    hold_s: float,
    return_s: float = 0.0,
    panic: bool,
    frozen_by: str,
    load: float,
    now: float,
    law: Law,
) -> Step:
    """`up`: size that the load needs; `down`: sizes at which a removal may stop, after long and after one hold.

    `return_s`: a burst may be back so long after the last; sizes of that time count for every removal.
    `frozen_by`: why nothing may be removed now, "" when it may. `load`: requests/s.
    The size moves up at most to `up`, down at most to the first of `down`. A hold in which nobody looked for a minute
    begins anew.
    """
    near, far = max(up, down[0]), max(up, *down)
    memory = msgspec.structs.replace(memory, ups=(*memory.ups, up > current)[-law.up_ticks - 1 :])
    if up > current and (panic or sum(memory.ups) >= law.up_ticks):
        return Step(up, _grown(memory, up, load, now, law))
    begun = bool(memory.peaks) and now - memory.peaks[-1][0] <= law.missing_s and not frozen_by
    long_s = max(hold_s * law.patience, law.patience_floor_s * memory.hold_factor, return_s)
    hold_s = max(hold_s, return_s)
    memory = msgspec.structs.replace(
        memory,
        peaks=_watch(memory.peaks, near if begun else current, now, long_s),
        peaks_far=_watch(memory.peaks_far, far if begun else current, now, hold_s),
    )
    if up > current:
        return Step(current, memory, f"{up} wanted by {sum(memory.ups)} looks, waiting for {law.up_ticks}")
    if near >= current:
        return Step(current, memory)
    if frozen_by:
        return Step(current, memory, f"{near} would do, {frozen_by}")
    size = min(memory.peaks[0][1], memory.peaks_far[0][1])
    if size >= current:
        left = min(
            long_s - now + memory.peaks[0][0], hold_s - now + memory.peaks_far[0][0] if far < current else long_s
        )
        why = f", bursts have come after {return_s:.0f} s or less" if return_s >= hold_s else ""
        return Step(current, memory, f"{near} would do, held {max(left, 0):.0f} s more{why}")
    factor = max(1.0, memory.hold_factor / 2) if _is_settled(memory, now, law) else memory.hold_factor
    return Step(size, msgspec.structs.replace(memory, removed_at=now, removed_load=load, hold_factor=factor))


def _is_settled(memory: PoolMemory, now: float, law: Law) -> bool:
    return memory.removed_at is not None and now - memory.removed_at > 4 * law.regret_s


def _grown(memory: PoolMemory, size: int, load: float, now: float, law: Law) -> PoolMemory:
    """After growth; a removal that it takes back at about the same load was too early, and the next waits longer."""
    factor, removed_at = memory.hold_factor, memory.removed_at
    recent = removed_at is not None and now - removed_at <= law.regret_s
    if recent and load <= law.regret_load * memory.removed_load:
        factor, removed_at = min(factor * 2, law.regret_max), None
    at = ((now, size),)
    return msgspec.structs.replace(memory, peaks=at, peaks_far=at, hold_factor=factor, removed_at=removed_at)


def _watch(peaks: tuple[tuple[float, int], ...], size: int, now: float, hold_s: float) -> tuple[tuple[float, int], ...]:
    """The sizes of the hold as a falling sequence; the first is the largest."""
    kept = [(time, replicas) for time, replicas in peaks if replicas > size and now - time < hold_s]
    return (*kept, (now, size))
