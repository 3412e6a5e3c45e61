"""The queue of requests that no pod has taken yet: order, bounds, expiry. Time is passed in, in seconds.

Order: open streams; then what can still make its objective, by (priority, deadline), tenants kept near each other;
then late work, which still gets a share of the fleet once it is old. What no pod has room for is parked meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from math import ceil, inf
from typing import Final, Literal

from tandem_runtime.policy.drain_rate import DrainRate
from tandem_runtime.policy.line import Foremost, Line
from tandem_runtime.policy.parked import ParkedRequests
from tandem_runtime.policy.slack import SlackBook, SlackHistogram
from tandem_runtime.policy.waiting import Expiry, QueueLaw, QueueLimits, Waiting

MAX_RETRY_AFTER_SECONDS: Final = 600
MAX_STALE: Final = 1024
HOPELESS: Final = 2.0
"""A request is refused at once when the backlog takes that many times its timeout; the estimate may be half wrong."""
RefusalReason = Literal["queue_full", "no_pod", "backlog"]


class QueueFull(Exception):
    """The message says which bound and what it is. `reason` no_pod: nothing serves (503), else too much waits (429)."""

    def __init__(self, message: str, reason: RefusalReason, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True)
class Blocked:
    """That the first request can go nowhere as long as the fleet is of this version, until then."""

    request_id: str
    version: int
    until: float
    reason: str
    behind: bool = False
    """What the queue was when it was found out."""


@dataclass(slots=True)
class Place:
    """Where a request is: in a line, or parked (for KV room, or until a time)."""

    entry: Waiting
    number: int
    local: bool
    need_tokens: int = 0
    parked_at: float | None = None


@dataclass
class WaitingQueue:
    """Ids are unique; removing an unknown one does nothing."""

    limits: QueueLimits = field(default_factory=QueueLimits)
    law: QueueLaw = field(default_factory=QueueLaw)
    tokens: int = 0
    """Prompt tokens of all that wait."""

    def __post_init__(self) -> None:
        self.drain = DrainRate()
        self._places: dict[str, Place] = {}
        self._far, self._near = Line(self.law), Line(self.law)
        self._slack = SlackBook()
        self.blocked: Blocked | None = None
        """What `next_dispatch` found out last."""
        self._number = self._changes = 0
        self._foremost: Foremost | None = None
        self._foremost_at = (-inf, 0)
        """Time and state for which `_foremost` is the first: it is asked for several times in a row."""
        self._timeouts: list[tuple[float, int, str]] = []
        self._arrivals: list[tuple[float, int, str]] = []
        self._pauses: list[tuple[float, int, str]] = []
        self._parked = {local: ParkedRequests(self.law) for local in (False, True)}
        self._parked_order: dict[str, None] = {}
        self._parked_late: dict[str, None] = {}
        """Of those, who were found to be late: pods are kept for them for a share of the time only."""
        self._late_rests_until = -inf

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._places

    def add(self, entry: Waiting, now: float, *, pods: bool = True) -> None:
        """Raises QueueFull. `pods`: there is a decode pod, so that more room is a matter of time."""
        if entry.id in self._places:
            raise ValueError(f"request {entry.id} waits already")
        if not entry.resumed:
            self._check_bounds(entry, now, pods)
        self._number += 1
        place = Place(entry, self._number, local=entry.tokens - entry.cached_tokens <= self.law.short_tokens)
        if not self._places:
            self.drain.begin(now)
        self._places[entry.id] = place
        self.tokens += entry.tokens
        self._slack.add(entry)
        if len(self._timeouts) > 2 * len(self._places) + MAX_STALE:
            self._forget_gone()
        heappush(self._timeouts, (entry.timeout_at, place.number, entry.id))
        heappush(self._arrivals, (entry.arrived, place.number, entry.id))
        self._line(place).add(entry, place.number, now)
        self._changes += 1

    def remove(self, request_id: str) -> None:
        """Idempotent."""
        place = self._places.pop(request_id, None)
        if place is None:
            return
        self._line(place).discard(place.number)
        self._parked[place.local].discard(place.number)
        self._changes += 1
        self._parked_order.pop(request_id, None)
        self._parked_late.pop(request_id, None)
        self.tokens -= place.entry.tokens
        self._slack.add(place.entry, -1)

    def first(self, now: float, *, near_only: bool = False) -> Waiting | None:
        """Who goes next; stays inside. `near_only`: among those that need no prefill pod."""
        near = self._near.first(now) if self._near else None
        if near_only:
            return near.entry if near is not None else None
        if self._foremost_at != (now, self._changes):
            rate = self.drain.tokens_per_second(now) if self.law.sets_back else None
            self._foremost = self._far.first(now, rate) if self._far else None
            self._foremost_at = (now, self._changes)
        far = self._foremost
        if near is None:
            return far.entry if far is not None else None
        return near.entry if far is None or not far.goes_before(near) else far.entry

    def dispatched(self, request_id: str, now: float) -> None:
        """Takes out what was sent to a pod and counts it to its tenant and to the drain rate."""
        place = self._places[request_id]
        rank = self._line(place).rank(place.number)
        self._line(place).dispatched(place.number)
        for parked in self._parked.values():
            parked.charge(rank, place.entry)
        self._changes += 1
        self.drain.count(place.entry.tokens, now)
        self.remove(request_id)

    def park(self, request_id: str, need_tokens: int, now: float) -> None:
        """No pod has room for it now: smaller ones may pass until `wake` finds room."""
        place = self._places[request_id]
        self._line(place).discard(place.number)
        self._changes += 1
        place.need_tokens = need_tokens
        place.parked_at = now if place.parked_at is None else place.parked_at
        self._parked_order[request_id] = None
        self._parked[place.local].add(place.entry, place.number, need_tokens, now)

    def pause(self, request_id: str, until: float) -> None:
        """It goes nowhere before `until`."""
        place = self._places[request_id]
        self._line(place).discard(place.number)
        self._changes += 1
        heappush(self._pauses, (until, place.number, request_id))

    def wake(self, now: float, room_tokens: float) -> None:
        """Those whose pause is over stand in line again, and the first few parked ones that fit into `room_tokens`."""
        while self._pauses and self._pauses[0][0] <= now:
            self._stand_again(heappop(self._pauses), now)
        for parked in self._parked.values():
            if parked and room_tokens > 0:
                for found in parked.fitting(room_tokens, now, self.drain.tokens_per_second(now)):
                    self.unpark(found.entry.id, now)

    def unpark(self, request_id: str, now: float) -> None:
        """Stands in line again, at the place that its key gives it."""
        place = self._places[request_id]
        if request_id in self._parked_order or request_id in self._parked_late:
            self._parked_order.pop(request_id, None)
            self._parked_late.pop(request_id, None)
            self._parked[place.local].discard(place.number)
            self._line(place).add(place.entry, place.number, now)
            self._changes += 1

    def longest_parked(self, now: float) -> tuple[Waiting, int] | None:
        """The request that others may not pass any longer, and the tokens that it needs.

        A late one only when it is old, and when late ones have not had their share of the pods' time already.
        """
        self._tell_late(now)
        for request_id in self._parked_late:  # first, as in an overload some in time always wait
            place = self._places[request_id]
            if now >= max(place.entry.arrived + self.law.late_patience_seconds, self._late_rests_until):
                return place.entry, place.need_tokens
            break
        for request_id in self._parked_order:
            place = self._places[request_id]
            if place.parked_at is not None and now - place.parked_at >= self.law.pass_seconds:
                return place.entry, place.need_tokens
            break
        return None

    def needed(self, request_id: str) -> tuple[Waiting, int]:
        """One that waits, as `longest_parked` told it."""
        place = self._places[request_id]
        return place.entry, place.need_tokens

    def turns_late_at(self, request_id: str) -> float:
        """When one that waits can no longer make its objective; never where the order does not ask, nor of an open
        stream: its client reads already."""
        entry = self._places[request_id].entry
        return inf if entry.streaming or self.law.order == "fifo" else entry.late_at

    def late_was_kept_for(self, seconds: float, now: float) -> None:
        """A pod was kept for a late request so long: the next one waits until that was no more than their share."""
        share = self.law.late_share
        self._late_rests_until = now + seconds * (1 / share - 1) if share > 0 else inf

    def _tell_late(self, now: float) -> None:
        while self._parked_order:
            request_id = next(iter(self._parked_order))
            if self.turns_late_at(request_id) > now:
                return
            del self._parked_order[request_id]
            self._parked_late[request_id] = None

    def is_behind(self) -> bool:
        """Some of those that need a prefill pod had to step back, so that the others are in time."""
        return self._far.sets_back()

    def has_near(self) -> bool:
        """Someone waits that needs no prefill pod."""
        return bool(self._near)

    def has_parked(self) -> bool:
        """Someone waits for KV room or for the end of a pause."""
        return bool(self._parked_order or self._parked_late or self._pauses)

    def expire(self, now: float, no_pod_since: float | None) -> list[tuple[Waiting, Expiry]]:
        """Takes out what waited too long. `no_pod_since` is when the last decode pod went, None while there is one."""
        gone: list[tuple[Waiting, Expiry]] = []
        while self._timeouts and self._timeouts[0][0] <= now:
            self._take(heappop(self._timeouts), "timeout", gone)
        if no_pod_since is not None and now - no_pod_since >= self.limits.wait_for_pods_seconds:
            while self._arrivals and self._arrivals[0][0] <= now - self.limits.wait_for_pods_seconds:
                self._take(heappop(self._arrivals), "no_pod", gone)
        if self.law.sheds_late and self.law.order == "deadline":
            turned = [*self._far.take_turned(now), *self._near.take_turned(now)]
            for parked in self._parked.values():
                turned += parked.take_turned(now)
            for entry in turned:
                if not entry.resumed:
                    self.remove(entry.id)
                    gone.append((entry, "late"))
        return gone

    def next_event(self, now: float, no_pod_since: float | None) -> float | None:
        """When to look again even if nothing else happens: an expiry, the end of a pause, the end of patience."""
        soonest = min(self._head(self._timeouts), self._head(self._pauses))
        if no_pod_since is not None:
            begun = max(self._head(self._arrivals), no_pod_since)
            soonest = min(soonest, begun + self.limits.wait_for_pods_seconds)
        if self._parked_order:
            parked_at = self._places[next(iter(self._parked_order))].parked_at
            if parked_at is not None and parked_at + self.law.pass_seconds > now:
                soonest = min(soonest, parked_at + self.law.pass_seconds)
        for request_id in self._parked_late:
            patience_ends = self._places[request_id].entry.arrived + self.law.late_patience_seconds
            keeps_at = max(patience_ends, self._late_rests_until)
            soonest = keeps_at if now < keeps_at < soonest else soonest
            break
        if self.law.sheds_late and self.law.order == "deadline":
            soonest = min(soonest, self._far.next_turn(), self._near.next_turn())
            soonest = min([soonest, *(parked.next_turn() for parked in self._parked.values() if parked)])
        return soonest if soonest < inf else None

    def slack(self, now: float) -> SlackHistogram:
        """Requests and tokens by time to their objective."""
        return self._slack.histogram(now)

    def entries(self) -> Iterator[Waiting]:
        """All that wait, by arrival at this queue."""
        return (place.entry for place in self._places.values())

    def retry_after_seconds(self, now: float) -> int:
        """Until what waits now is served at the rate measured, at least 1."""
        seconds = self.drain.seconds_for(self.tokens, now)
        return max(1, min(MAX_RETRY_AFTER_SECONDS, ceil(seconds if seconds is not None else 1.0)))

    def _check_bounds(self, entry: Waiting, now: float, pods: bool) -> None:
        reason: RefusalReason = "queue_full" if pods else "no_pod"
        if len(self) >= self.limits.max_requests:
            text = f"{len(self)} requests wait already, which is the limit"
        elif self.tokens + entry.tokens > self.limits.max_tokens and self._places:
            text = f"{self.tokens} prompt tokens wait already and the limit is {self.limits.max_tokens}"
        else:
            if not pods or (self.law.order == "deadline" and now < entry.late_at < inf):
                return  # it goes before all that is late already
            seconds = self.drain.seconds_for(self.tokens, now)
            if seconds is None or seconds < HOPELESS * (entry.timeout_at - now):
                return
            reason = "backlog"
            text = f"what waits takes {seconds:.0f} s and the request's timeout is {entry.timeout_at - now:.0f} s"
        retry_after_seconds = self.retry_after_seconds(now)
        raise QueueFull(f"{text}; try again in {retry_after_seconds} s", reason, retry_after_seconds)

    def _forget_gone(self) -> None:
        """Requests that left stay in the heaps until their time; at a thousand a second that would be a lot."""
        places = list(self._places.values())[:-1]  # the new one is about to be added
        self._timeouts = [(place.entry.timeout_at, place.number, place.entry.id) for place in places]
        self._arrivals = [(place.entry.arrived, place.number, place.entry.id) for place in places]
        heapify(self._timeouts)
        heapify(self._arrivals)

    def _line(self, place: Place) -> Line:
        return self._near if place.local else self._far

    def _stand_again(self, item: tuple[float, int, str], now: float) -> None:
        _, number, request_id = item
        place = self._places.get(request_id)
        if place is not None and place.number == number:
            self._line(place).add(place.entry, number, now)
            self._changes += 1

    def _take(self, item: tuple[float, int, str], why: Expiry, gone: list[tuple[Waiting, Expiry]]) -> None:
        _, number, request_id = item
        place = self._places.get(request_id)
        if place is not None and place.number == number:
            self.remove(request_id)
            gone.append((place.entry, why))

    def _head(self, heap: list[tuple[float, int, str]]) -> float:
        """Of those that are still here."""
        while heap:
            when, number, request_id = heap[0]
            place = self._places.get(request_id)
            if place is not None and place.number == number:
                return when
            heappop(heap)
        return inf
