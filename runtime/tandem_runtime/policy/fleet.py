"""The pods of a deployment as the choice needs them: kept in order of load, so that a choice looks at few of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Literal, NamedTuple

from tandem_runtime.contracts.coefficients import Coefficients
from tandem_runtime.policy.pods import HEADROOM_TOKENS, PodSnapshot
from tandem_runtime.policy.waiting import Waiting

Refusal = Literal["", "no_slot", "no_room", "slow"]
Key = tuple[float | str, ...]
"""Of a ranking, all alike: least loaded first; names make it deterministic."""


@dataclass(frozen=True, slots=True)
class ChoiceLaw:
    """Settings of the choice, each with its reason."""

    ahead_seconds: float = 0.1
    """A prefill pod gets more while it has less than that to do: it never idles, and the order is made in the queue,
    where it can still change."""
    ahead_tokens: int = 4096
    """The same where its speed is not known."""
    short_tokens: int = 0
    """Prompts of so few uncached tokens are computed by the decode pod: a hand-off takes longer."""
    tpot_seconds: float = inf
    """The strictest objective of any class: who shares a batch shares its speed."""
    tpot_share: float = 0.95
    """A decode pod takes no request that would take its predicted step above that share of the objective."""
    packs: bool = False
    """Fill the most loaded pod that still meets the objective, so that others empty and can be let go."""
    convertible: bool = True
    """Decode pods with TPOT to spare compute prompts when the prefill pool is behind."""
    convert_tokens: int = 512
    """Prompt tokens that a decode pod adds to one step, where it does not say."""
    convert_share: float = 0.5
    """Of its objective, what a waiting request has left when a decode pod may take its prompt."""
    convert_late_full: float = 0.5
    """Of a decode pod's slots and KV, what may be taken before it computes no late prompts any more: a backlog of an
    hour must not fill the pods that prefill pods send to."""
    convert_candidates: int = 4
    """Least loaded decode pods that are asked: the next ones have less to spare."""
    affinity_tokens: int = 256
    """Cached tokens for which a request goes to the decode pod that holds them instead of to the least loaded."""

    def convert_at(self, entry: Waiting) -> float:
        """From then on its wait says that the prefill pool is the bottleneck."""
        if entry.objective_at == inf:
            return inf
        return entry.objective_at - self.convert_share * (entry.objective_at - entry.arrived)

    def spares(self, pod: PodSnapshot, tokens: int) -> bool:
        """With so many more tokens a decode pod still has room for whoever comes in time: late prompts may use it."""
        if pod.max_sequences and pod.running + 1 > self.convert_late_full * pod.max_sequences:
            return False
        return not pod.kv_total_tokens or pod.kv_used_tokens + tokens <= self.convert_late_full * pod.kv_total_tokens

    def takes_more(self, pod: PodSnapshot, now: float) -> bool:
        """A prefill pod that would otherwise soon have nothing to do."""
        if pod.busy_until is not None:
            return now >= pod.busy_until - self.ahead_seconds  # as in opens_at: to the last bit
        return pod.waiting_tokens < self.ahead_tokens


class Reservation(NamedTuple):
    """A pod that is kept for a request which others passed for too long."""

    incarnation: str
    request_id: str
    is_late: bool = False
    """The request was late already: the time counts to the share of late ones."""
    since: float = 0.0
    """When it began."""


class Ranking:
    """Pods in the order of their keys, which are unique."""

    def __init__(self) -> None:
        self.keys: list[Key] = []
        self.pods: list[PodSnapshot] = []

    def insert(self, key: Key, pod: PodSnapshot) -> None:
        """One more."""
        index = bisect_left(self.keys, key)
        self.keys.insert(index, key)
        self.pods.insert(index, pod)

    def remove(self, key: Key) -> None:
        """It must be there."""
        index = bisect_left(self.keys, key)
        del self.keys[index], self.pods[index]

    def move(self, old: Key, key: Key, pod: PodSnapshot) -> None:
        """What was known under `old` is now this."""
        keys = self.keys
        index = bisect_left(keys, old)
        if (not index or keys[index - 1] < key) and (index + 1 == len(keys) or key < keys[index + 1]):
            keys[index] = key
            self.pods[index] = pod
        else:
            del keys[index], self.pods[index]
            self.insert(key, pod)


@dataclass(slots=True)
class Standing:
    """Where a pod stands."""

    ranking: Ranking
    key: Key


class Fleet:
    """`put` a pod whenever something about it changed; snapshots themselves never change."""

    def __init__(self, law: ChoiceLaw | None = None) -> None:
        self.law = law or ChoiceLaw()
        self.pods: dict[str, PodSnapshot] = {}
        """By incarnation: all, also those that do not serve."""
        self.largest_tokens = 0.0
        """KV of the largest of them."""
        self.reserved: Reservation | None = None
        self.version = 0
        """Grows with every change."""
        self._decodes = Ranking()
        self.decodes = self._decodes.pods
        """That serve, the least loaded first."""
        self._groups: dict[tuple[str, Coefficients | None], Ranking] = {}
        """Prefill pods of one revision that can do the same, the one that is first done first."""
        self._places: dict[str, Standing] = {}
        self._sizes: dict[float, int] = {}

    def put(self, pod: PodSnapshot, now: float) -> None:
        """Adds it or replaces what was known of that incarnation."""
        self.version += 1
        if pod.role == "prefill" and pod.busy_until is None and pod.coefficients is not None:
            busy_until = now + (pod.prompt_seconds(pod.waiting_tokens) if pod.waiting_tokens else 0.0)
            pod = pod.with_busy_until(busy_until)
        known = self.pods.get(pod.incarnation)
        self.pods[pod.incarnation] = pod
        place = self._places.get(pod.incarnation)
        if place is None or known is None or not pod.serves() or not _alike(known, pod):
            if place is not None and known is not None:
                self._take_out(known)
            if pod.serves():
                self._enter(pod)
            return
        key = _key(pod)
        place.ranking.move(place.key, key, pod)
        place.key = key

    def drop(self, incarnation: str) -> None:
        """Idempotent."""
        self.version += 1
        pod = self.pods.pop(incarnation, None)
        if pod is not None and incarnation in self._places:
            self._take_out(pod)

    def _enter(self, pod: PodSnapshot) -> None:
        if pod.role == "prefill":
            ranking = self._groups.setdefault((pod.revision, pod.coefficients), Ranking())
        else:
            ranking = self._decodes
            self._count_size(pod.kv_total_tokens or inf, 1)
        key = _key(pod)
        ranking.insert(key, pod)
        self._places[pod.incarnation] = Standing(ranking, key)

    def _take_out(self, pod: PodSnapshot) -> None:
        place = self._places.pop(pod.incarnation)
        place.ranking.remove(place.key)
        if pod.role != "prefill":
            self._count_size(pod.kv_total_tokens or inf, -1)
        elif not place.ranking.pods:
            del self._groups[pod.revision, pod.coefficients]

    def _count_size(self, tokens: float, sign: int) -> None:
        self._sizes[tokens] = self._sizes.get(tokens, 0) + sign
        if not self._sizes[tokens]:
            del self._sizes[tokens]
        self.largest_tokens = max(self._sizes, default=0.0)

    def reserve(self, kept: Reservation | None) -> None:
        """Keeps a pod for a request, or none."""
        if kept != self.reserved:
            self.reserved = kept
            self.version += 1

    def decode_order(self) -> list[PodSnapshot]:
        """Serving decode pods, those to be preferred first."""
        return self.decodes[::-1] if self.law.packs else self.decodes

    def tpot_limit(self, entry: Waiting) -> float:
        """Seconds that a step may take with this request in it."""
        return min(entry.tpot_seconds, self.law.tpot_seconds) * self.law.tpot_share

    def admits(self, pod: PodSnapshot, entry: Waiting, need_tokens: int, limit_seconds: float) -> Refusal:
        """Why a decode pod takes it not now; empty when it does. An empty pod takes whatever it can hold."""
        if not pod.has_slot():
            return "no_slot"
        least_tokens = entry.tokens + HEADROOM_TOKENS
        if pod.room_tokens() < (need_tokens if pod.running else least_tokens):
            return "no_room"
        if (
            self.reserved is not None
            and self.reserved.incarnation == pod.incarnation
            and self.reserved.request_id != entry.id
        ):
            return "no_room"
        known = pod.coefficients
        if known is None or not pod.running or pod.step_seconds(1, entry.tokens) <= limit_seconds:
            return ""
        # An objective that not even an empty pod would meet bounds nothing: it would only waste the fleet.
        return "slow" if known.step_seconds(1, entry.tokens) <= limit_seconds else ""

    def prefill_candidates(
        self, revision: str, tokens: int, avoid: frozenset[str], cached: Mapping[str, int]
    ) -> list[PodSnapshot]:
        """Of each kind the pod that is first done, and those that hold some of the prompt."""
        found: list[PodSnapshot] = []
        for (group_revision, _), group in self._groups.items():
            if group_revision != revision:
                continue
            for pod in group.pods:
                if pod.incarnation not in avoid and pod.room_tokens() >= tokens:
                    found.append(pod)
                    break
        for incarnation in cached:
            held = self.pods.get(incarnation)
            if held is None or held.role != "prefill" or held.revision != revision or incarnation in avoid:
                continue
            if held.serves() and held.room_tokens() >= tokens:
                found.append(held)
        return found

    def could_prefill(self, revision: str, entry: Waiting, now: float) -> bool:
        """A prefill pod will have room for it, though none has now."""
        avoid = entry.avoided(now)
        return any(
            pod.incarnation not in avoid and (pod.kv_total_tokens or inf) >= entry.tokens
            for (group_revision, _), group in self._groups.items()
            if group_revision == revision
            for pod in group.pods
        )

    def opens_at(self, now: float) -> float:
        """When the next prefill pod takes more work if nothing else is heard; infinite when none is known."""
        ahead_seconds, soonest = self.law.ahead_seconds, inf
        for group in self._groups.values():
            busy_until = group.pods[0].busy_until
            if busy_until is not None and now < busy_until - ahead_seconds < soonest:
                soonest = busy_until - ahead_seconds
        return soonest

    def room_tokens(self) -> float:
        """The most KV that one decode pod has free for anyone; one whose step is too slow has none to give."""
        kept = self.reserved.incarnation if self.reserved else ""
        pods = (pod for pod in self.decodes if pod.incarnation != kept and self._open(pod))
        return max((pod.room_tokens() for pod in pods), default=0)

    def _open(self, pod: PodSnapshot) -> bool:
        """It may take some request, as `admits` would say of the smallest."""
        known, limit = pod.coefficients, self.law.tpot_seconds * self.law.tpot_share
        slow = known is not None and pod.running > 0 and known.step_seconds(1, 0) <= limit < pod.step_seconds(1)
        return pod.has_slot() and not slow

    def service_seconds(self, tokens: int, cached_tokens: int = 0) -> float:
        """From an idle fleet to the first token; 0 when nobody knows."""
        best = inf
        for group in self._groups.values():
            best = min(best, group.pods[0].prompt_seconds(tokens, cached_tokens))
        if not self.decodes:
            return 0.0
        decode = self.decodes[0]
        if best == inf:
            best = decode.prompt_seconds(tokens, cached_tokens)
        elif decode.role != "both":
            best += decode.link_seconds(tokens)
        return best + decode.step_seconds(1, tokens)


def _alike(known: PodSnapshot, pod: PodSnapshot) -> bool:
    """It stands in the same ranking as before; identity of the coefficients is enough, and quick."""
    return (
        known.coefficients is pod.coefficients
        and known.role == pod.role
        and known.revision == pod.revision
        and known.kv_total_tokens == pod.kv_total_tokens
    )


def _key(pod: PodSnapshot) -> Key:
    if pod.role == "prefill":
        return (pod.busy_until or 0.0, pod.waiting_tokens, pod.running, pod.pod, pod.incarnation)
    filled = pod.kv_used_tokens / pod.kv_total_tokens if pod.kv_total_tokens else 0.0
    return (pod.step_seconds(1), pod.running, filled, pod.pod, pod.incarnation)
