"""Who goes where next: queue and choice together, the same for router and simulator.

A request that no pod has room for is parked while smaller ones pass; after the law's patience the pod with the most
room is kept for it. Requests that need no prefill pod do not wait for one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf

from tandem_runtime.policy.choice import NOTHING_CACHED, Hold, Pair, choose
from tandem_runtime.policy.fleet import Fleet, Reservation
from tandem_runtime.policy.queue import Blocked, WaitingQueue
from tandem_runtime.policy.waiting import Waiting


@dataclass(frozen=True, slots=True)
class Dispatch:
    """A request that left the queue. `hold` (too_large) instead of `pair`: no pod will ever hold it."""

    entry: Waiting
    pair: Pair | None
    hold: Hold | None = None


def next_dispatch(
    queue: WaitingQueue,
    fleet: Fleet,
    now: float,
    cached: Callable[[Waiting], Mapping[str, int]] = lambda entry: NOTHING_CACHED,
) -> Dispatch | None:
    """Call it again, with the pods of the pair `put` anew, until there is None. `cached`: see `choose`."""
    if fleet.reserved is not None:
        _end_reservation(queue, fleet, now)
    if not queue:
        return None
    if not fleet.decodes:
        queue.drain.begin(now)  # waiting for a pod says nothing of how fast pods are
        queue.wake(now, 0)  # a pause that is over is no event any more
        return None
    if queue.has_parked():
        _keep_a_pod(queue, fleet, now)
        queue.wake(now, fleet.room_tokens())
    near_only = False
    while (entry := queue.first(now, near_only=near_only)) is not None:
        behind = queue.is_behind()
        if not _still_blocked(queue, fleet, entry, now, behind):
            found = choose(fleet, entry, now, cached(entry), behind)
            if isinstance(found, Pair):
                queue.dispatched(entry.id, now)
                return Dispatch(entry, found)
            if found.reason == "too_large":
                queue.remove(entry.id)
                return Dispatch(entry, None, found)
            if _step_aside(queue, entry, found, now):
                continue
            if not near_only:
                until = _may_change_at(fleet, entry, now)
                queue.blocked = Blocked(entry.id, fleet.version, until, found.reason, behind)
        if near_only or queue.blocked is None or queue.blocked.reason != "prefill_busy" or not queue.has_near():
            return None
        near_only = True
    return None


def _step_aside(queue: WaitingQueue, entry: Waiting, hold: Hold, now: float) -> bool:
    """Whether others may be served before it for now."""
    if hold.reason == "no_room":
        queue.park(entry.id, hold.need_tokens, now)
    elif hold.reason == "avoided":
        queue.pause(entry.id, entry.avoid_until)
    else:
        return False
    return True


def _still_blocked(queue: WaitingQueue, fleet: Fleet, entry: Waiting, now: float, behind: bool) -> bool:
    """The first request got its answer already, and nothing has changed since."""
    known = queue.blocked
    if known is None or known.request_id != entry.id or known.version != fleet.version or now >= known.until:
        return False
    return known.behind or not behind


def _may_change_at(fleet: Fleet, entry: Waiting, now: float) -> float:
    """When the answer for this request may be another one though no pod has changed."""
    soonest = inf
    for time in (fleet.opens_at(now), fleet.law.convert_at(entry), entry.late_at, entry.avoid_until):
        if now < time < soonest:
            soonest = time
    return soonest


def next_look(queue: WaitingQueue, fleet: Fleet, now: float, no_pod_since: float | None) -> float | None:
    """When `expire` and `next_dispatch` may do something even if nothing else happens; None: never."""
    if not queue:
        return None
    event = queue.next_event(now, no_pod_since)
    soonest = min(inf if event is None else event, fleet.opens_at(now))
    if fleet.law.convertible and (head := queue.first(now)) is not None:
        convert_at = fleet.law.convert_at(head)
        soonest = convert_at if now < convert_at < soonest else soonest
    kept = fleet.reserved
    if kept is not None and not kept.is_late and kept.request_id in queue:
        soonest = min(soonest, queue.turns_late_at(kept.request_id))
    return None if soonest == inf else soonest


def _end_reservation(queue: WaitingQueue, fleet: Fleet, now: float) -> None:
    """If it served its purpose, its pod is gone, or who was in time no longer is: for late ones there is a share."""
    kept = fleet.reserved
    if kept is None:
        return
    pod = fleet.pods.get(kept.incarnation)
    is_over = kept.request_id not in queue or pod is None or not pod.serves()
    if is_over or (not kept.is_late and queue.turns_late_at(kept.request_id) <= now):
        if kept.is_late:
            queue.late_was_kept_for(now - kept.since, now)
        fleet.reserve(None)


def _keep_a_pod(queue: WaitingQueue, fleet: Fleet, now: float) -> None:
    """For a request that was passed for too long, until it is served."""
    if fleet.reserved is not None:
        entry, need_tokens = queue.needed(fleet.reserved.request_id)
        pod = fleet.pods[fleet.reserved.incarnation]
    elif (longest := queue.longest_parked(now)) is not None:
        entry, need_tokens = longest
        able = [pod for pod in fleet.decodes if (pod.kv_total_tokens or inf) >= need_tokens]
        pod = max(able or fleet.decodes, key=lambda pod: (pod.room_tokens(), pod.pod))
        fleet.reserve(Reservation(pod.incarnation, entry.id, queue.turns_late_at(entry.id) <= now, now))
    else:
        return
    if not fleet.admits(pod, entry, need_tokens, fleet.tpot_limit(entry)):
        queue.unpark(entry.id, now)
