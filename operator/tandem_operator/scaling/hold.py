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
    down: int,
    *,
    hold_s: float,
    panic: bool,
    frozen_by: str,
    now: float,
    law: Law,
) -> Step:
    """`up`: size that the load needs; `down` >= `up`: size at which a removal may stop.

    `frozen_by`: why nothing may be removed now, "" when it may.
    The size moves up at most to `up`, down at most to `down`.
    """
    down = max(up, down)
    votes = (*memory.ups, up > current)[-3:]
    memory = msgspec.structs.replace(memory, ups=votes)
    if up > current:
        if panic or sum(votes) >= law.up_ticks:
            return Step(up, _grown(memory, up, now, law), "")
        return Step(current, _watch(memory, current, now, hold_s), f"{up} wanted, waiting for a second look")
    seen = current if frozen_by else max(down, up)
    memory = _watch(memory, min(seen, current) if memory.peaks else current, now, hold_s)
    if down >= current:
        return Step(current, memory)
    if frozen_by:
        return Step(current, memory, f"{down} would do, {frozen_by}")
    largest = memory.peaks[0][1]
    if largest >= current:
        left = hold_s - (now - memory.peaks[0][0])
        return Step(current, memory, f"{down} would do, held {max(left, 0):.0f} s more")
    size = largest if current - down > law.surplus * current else current - 1
    shrunk = msgspec.structs.replace(
        memory,
        removed_at=now,
        peaks=((now, size),) if size > largest else memory.peaks,
        hold_factor=max(1.0, memory.hold_factor / 2) if _settled(memory, now, law) else memory.hold_factor,
    )
    return Step(size, shrunk)


def _settled(memory: PoolMemory, now: float, law: Law) -> bool:
    return memory.removed_at is not None and now - memory.removed_at > 4 * law.regret_s


def _grown(memory: PoolMemory, size: int, now: float, law: Law) -> PoolMemory:
    """After growth; a removal that it takes back was too early, and the next one waits longer."""
    factor = memory.hold_factor
    if memory.removed_at is not None and now - memory.removed_at <= law.regret_s:
        factor = min(factor * 2, law.regret_max)
    return msgspec.structs.replace(
        memory,
        peaks=((now, size),),
        hold_factor=factor,
        removed_at=None if factor != memory.hold_factor else memory.removed_at,
    )


def _watch(memory: PoolMemory, size: int, now: float, hold_s: float) -> PoolMemory:
    """Remembers the sizes of the hold as a falling sequence; the first is the largest."""
    peaks = [(time, replicas) for time, replicas in memory.peaks if replicas > size and now - time < hold_s]
    peaks.append((now, size))
    return msgspec.structs.replace(memory, peaks=tuple(peaks))
