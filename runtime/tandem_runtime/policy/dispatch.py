"""Who goes where next: queue and choice together, the same for router and simulator.

A request that no pod has room for is parked while smaller ones pass; after the law's patience the pod with the most
room is kept for it. Requests that need no prefill pod do not wait for one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import NamedTuple

from tandem_runtime.policy.choice import NOTHING_CACHED, Hold, Pair, choose
from tandem_runtime.policy.fleet import Fleet
from tandem_runtime.policy.queue import WaitingQueue
from tandem_runtime.policy.waiting import Waiting


class Dispatch(NamedTuple):
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
    if not queue:
        return None
    if not fleet.decodes:
        queue.drain.begin(now)  # waiting for a pod says nothing of how fast pods are
        return None
    if queue.has_parked():
        _keep_a_pod(queue, fleet, now)
        queue.wake(now, fleet.room_tokens())
    elif fleet.reserved is not None:
        fleet.reserved = None
    near_only = False
    while True:
        entry = queue.first(now, near_only=near_only)
        if entry is None:
            return None
        found = choose(fleet, entry, now, cached(entry))
        if isinstance(found, Pair):
            queue.dispatched(entry.id, now)
            return Dispatch(entry, found)
        if found.reason == "no_room":
            queue.park(entry.id, found.need_tokens, now)
        elif found.reason == "avoided":
            queue.pause(entry.id, entry.avoid_until)
        elif found.reason == "too_large":
            queue.remove(entry.id)
            return Dispatch(entry, None, found)
        elif found.reason == "prefill_busy" and not near_only:
            near_only = True
        else:
            return None


def next_look(queue: WaitingQueue, fleet: Fleet, now: float, no_pod_since: float | None) -> float | None:
    """When `expire` and `next_dispatch` may do something even if nothing else happens; None: never."""
    if not queue:
        return None
    event = queue.next_event(now, no_pod_since)
    soonest = min(inf if event is None else event, fleet.opens_at(now))
    if fleet.law.convertible and (head := queue.first(now)) is not None:
        convert_at = fleet.law.convert_at(head)
        soonest = convert_at if now < convert_at < soonest else soonest
    return None if soonest == inf else soonest


def _keep_a_pod(queue: WaitingQueue, fleet: Fleet, now: float) -> None:
    """Ends a reservation that served its purpose, and makes one for a request that was passed for too long."""
    longest = queue.longest_parked(now)
    if longest is None:
        fleet.reserved = None
        return
    entry, need_tokens = longest
    kept = fleet.pods.get(fleet.reserved[0]) if fleet.reserved and fleet.reserved[1] == entry.id else None
    if kept is None or not kept.serves():
        able = [pod for pod in fleet.decodes if (pod.kv_total_tokens or inf) >= need_tokens]
        kept = max(able or fleet.decodes, key=lambda pod: (pod.room_tokens(), pod.pod), default=None)
    if kept is None:
        fleet.reserved = None
        return
    fleet.reserved = (kept.incarnation, entry.id)
    if kept.room_tokens() >= need_tokens or not kept.running:
        queue.unpark(entry.id, now)
