"""From counters to knowledge: how good each source is, and what arrived since the last look.

NaN, infinity and negative values never become load; a counter that fell within one incarnation is suspect.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from tandem_operator.scaling.bins import Sums, spread
from tandem_operator.scaling.law import Law
from tandem_operator.scaling.observation import ClassCounters, Observation, Pod, PodSignals, RouterSignals
from tandem_operator.scaling.sanitise import SUSPECT
from tandem_operator.scaling.state import Bin, ClassMix, PodMark, RouterMark, State

Quality = Literal["Fresh", "Stale", "Missing", "Suspect"]
MIX_MEMORY_S = 60.0
"""The mix of classes fades with this time constant."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """The observation as far as it can be trusted."""

    routers: dict[str, Quality]
    pods: dict[str, Quality]
    """Of pods that are ready."""
    load_quality: Quality
    """Of the routers together: the worst of them, Missing when one that is expected never told."""
    list_quality: Quality = "Fresh"
    """Of the list of pods itself."""
    queue_requests: int = 0
    queue_tokens: int = 0
    queue_slack: tuple[int, ...] = ()
    """Requests by SLACK_EDGES_S."""
    queue_slack_tokens: tuple[int, ...] = ()
    active: bool = False
    """Something arrived, waits or runs."""
    decoding: int = 0
    """Sequences in decode pods that tell and have been ready for as long as completions are counted over."""
    decode_told: int = 0
    """Those pods."""
    arrived: float = 0.0
    """Requests since the last look."""

    def blind(self, role: str, pods: tuple[Pod, ...]) -> bool:
        """Whether something is not known that a removal from this pool must know."""
        if self.load_quality != "Fresh" or self.list_quality != "Fresh":
            return True
        return any(self.pods.get(pod.name, "Fresh") != "Fresh" for pod in pods if pod.role == role)


def judge(at: float, now: float, law: Law) -> Quality:
    """By age."""
    age = now - at
    if age <= law.fresh_s:
        return "Fresh"
    return "Stale" if age <= law.missing_s else "Missing"


def _impossible(counters: ClassCounters) -> bool:
    return (
        min(
            counters.arrivals,
            counters.prompt_tokens,
            counters.prompt_tokens_squared,
            counters.cached_tokens,
            counters.completed,
            counters.output_tokens,
            counters.output_tokens_squared,
            counters.met,
            counters.missed,
            counters.shed,
            counters.failed,
            counters.cancelled,
        )
        < 0
        or counters.cached_tokens > counters.prompt_tokens
    )


def _misses(counters: ClassCounters) -> int:
    """Too late, refused for lack of capacity, failed: each request is in one of the three at most."""
    return counters.missed + counters.shed + counters.failed


def _fell(new: ClassCounters, old: ClassCounters) -> bool:
    return (
        new.arrivals < old.arrivals
        or new.prompt_tokens < old.prompt_tokens
        or new.completed < old.completed
        or new.output_tokens < old.output_tokens
    )


def _difference(new: ClassCounters, old: ClassCounters) -> Sums:
    return Sums(
        requests=float(new.arrivals - old.arrivals),
        prompt_tokens=float(new.prompt_tokens - old.prompt_tokens),
        cached_tokens=float(max(new.cached_tokens - old.cached_tokens, 0)),
        squares=max(new.prompt_tokens_squared - old.prompt_tokens_squared, 0.0),
        completed=float(new.completed - old.completed),
        output_tokens=float(new.output_tokens - old.output_tokens),
        output_squares=max(new.output_tokens_squared - old.output_tokens_squared, 0.0),
    )


class Taken(msgspec.Struct):
    """What one look at the routers added."""

    marks: dict[str, RouterMark]
    mixes: dict[str, ClassMix]
    bins: tuple[Bin, ...]
    since: float | None
    seen: float | None
    added: Sums = Sums()


def take_routers(state: State, observation: Observation, now: float, law: Law) -> Taken:
    """Adds up what each router counted since its last account; each difference is spread over the time it took.

    However long that was: what nobody looked at was not idle. Time that no difference tells of is not covered.
    """
    marks = {name: mark for name, mark in state.routers.items() if now - mark.at <= max(law.missing_s, law.slow_s)}
    bins = state.bins
    mixes = dict(state.mixes)
    total = Sums()
    told = False
    for router in observation.routers:
        old = state.routers.get(router.router)
        new, added = _take_one(router, old, state, mixes, now)
        marks[router.router] = new
        if added is not None and old is not None and new.at > old.at:
            told = True
            total = total.plus(added)
            bins = spread(bins, added, old.at, new.at, law)
    ages = [mark.at for mark in marks.values() if not mark.suspect]
    if not ages:
        return Taken(marks, mixes, bins, state.since, state.seen)
    newest = max(ages)
    seen = max(min(at for at in ages if at >= newest - law.fast_s), state.seen or -math.inf)
    untold = state.seen is not None and seen - state.seen > law.missing_s and not told
    since = seen if state.since is None or untold else state.since
    return Taken(marks, mixes, bins, since, seen, total)


def _take_one(
    router: RouterSignals, old: RouterMark | None, state: State, mixes: dict[str, ClassMix], now: float
) -> tuple[RouterMark, Sums | None]:
    """Its new mark, and the difference; None when there is nothing that can be added."""
    lying = router.at < 0 or router.at > now + 60 or any(_impossible(c) for c in router.classes.values())
    if lying:
        last = old or RouterMark(router.incarnation, SUSPECT)
        return msgspec.structs.replace(last, suspect=True), None
    mark = RouterMark(router.incarnation, router.at, router.classes)
    if old is None or old.at < 0:
        return mark, None
    if old.incarnation == router.incarnation:
        if router.at <= old.at:
            return old, None
        before = old.classes
        if any(_fell(counters, before[name]) for name, counters in router.classes.items() if name in before):
            return msgspec.structs.replace(mark, suspect=True), None
    else:
        before = {}
    total = Sums()
    fade = math.exp(-max(router.at - old.at, 0.0) / MIX_MEMORY_S)
    for name, counters in router.classes.items():
        past = before.get(name, ClassCounters())
        added = _difference(counters, past)
        total = total.plus(added)
        mix = mixes.get(name, ClassMix())
        met = max(counters.met - past.met, 0)
        mixes[name] = ClassMix(
            requests=mix.requests * fade + added.requests,
            prompt_tokens=mix.prompt_tokens * fade + added.prompt_tokens,
            squares=mix.squares * fade + added.squares,
            met=mix.met * fade + met,
            counted=mix.counted * fade + met + max(_misses(counters) - _misses(past), 0),
        )
    return mark, total


def take_pods(state: State, observation: Observation, now: float) -> dict[str, PodMark]:
    """The last sane account of each pod that exists."""
    marks: dict[str, PodMark] = {}
    for pod in observation.pods:
        old = state.pods.get(pod.name)
        if pod.signals is not None and _is_sane(pod.signals, now):
            if old is not None and old.incarnation == pod.signals.incarnation and pod.signals.at < old.at:
                marks[pod.name] = old
                continue
            seen = old.iterations_total if old is not None and old.incarnation == pod.signals.incarnation else 0
            marks[pod.name] = _mark(pod.signals, seen)
        elif old is not None:
            marks[pod.name] = old
    return marks


def _is_sane(signals: PodSignals, now: float) -> bool:
    return (
        0 <= signals.at <= now + 60
        and min(signals.running, signals.waiting, signals.kv_used_tokens, signals.output_tokens) >= 0
        and (signals.kv_total_tokens <= 0 or signals.kv_used_tokens <= 2 * signals.kv_total_tokens)
    )


def _mark(signals: PodSignals, learned: int) -> PodMark:
    return PodMark(
        signals.incarnation,
        signals.at,
        signals.running,
        signals.waiting,
        signals.kv_used_tokens,
        signals.output_tokens,
        signals.prompt_tokens,
        learned,
    )


def read(taken: Taken, pods: dict[str, PodMark], observation: Observation, now: float, law: Law) -> Reading:
    """Judges every source and adds the queues up."""
    routers: dict[str, Quality] = {}
    for name, mark in taken.marks.items():
        routers[name] = "Suspect" if mark.suspect else judge(mark.at, now, law)
    alive = [quality for quality in routers.values() if quality != "Missing"]
    missing = len(alive) < max(observation.routers_expected, 1)
    load: Quality = "Missing" if missing else "Fresh"
    for quality in ("Stale", "Suspect"):
        if quality in alive and not missing:
            load = quality
    qualities: dict[str, Quality] = {}
    running = decoding = decode_told = 0
    for pod in observation.pods:
        if pod.state not in ("ready", "draining"):
            continue
        pod_mark = pods.get(pod.name)
        if pod_mark is None:
            young = pod.ready_since is not None and now - pod.ready_since <= law.fresh_s
            qualities[pod.name] = "Fresh" if young else "Missing"
        else:
            qualities[pod.name] = judge(pod_mark.at, now, law)
            running += pod_mark.running + pod_mark.waiting
            settled = pod.ready_since is not None and now - pod.ready_since >= law.medium_s
            if pod.role == "decode" and pod.state == "ready" and settled:
                decoding += pod_mark.running
                decode_told += 1
    requests = sum(max(router.queue.requests, 0) for router in observation.routers)
    return Reading(
        routers=routers,
        pods=qualities,
        load_quality=load,
        list_quality=judge(observation.pods_at, now, law) if observation.pods_at >= 0 else "Suspect",
        queue_requests=requests,
        queue_tokens=sum(max(router.queue.tokens, 0) for router in observation.routers),
        queue_slack=_add_up([router.queue.slack_requests for router in observation.routers]),
        queue_slack_tokens=_add_up([router.queue.slack_tokens for router in observation.routers]),
        decoding=decoding,
        decode_told=decode_told,
        active=taken.added.requests > 0 or requests > 0 or running > 0,
        arrived=taken.added.requests,
    )


def _add_up(histograms: list[tuple[int, ...]]) -> tuple[int, ...]:
    width = max((len(histogram) for histogram in histograms), default=0)
    return tuple(sum(max(h[i], 0) for h in histograms if i < len(h)) for i in range(width))
