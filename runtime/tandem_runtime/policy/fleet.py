"""The pods of a deployment as the choice needs them: kept in order of load, so that a choice looks at few of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal

import msgspec

from tandem_runtime.contracts.coefficients import Coefficients
from tandem_runtime.policy.pods import HEADROOM_TOKENS, PodSnapshot
from tandem_runtime.policy.waiting import Waiting

Refusal = Literal["", "no_slot", "no_room", "slow"]
DecodeKey = tuple[float, int, float, str]
PrefillKey = tuple[float, int, int, str]


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
    """Prompt tokens that a decode pod adds to one step."""
    convert_share: float = 0.5
    """Of its objective, what a waiting request has left when a decode pod may take its prompt."""
    convert_candidates: int = 4
    """Least loaded decode pods that are asked: the next ones have less to spare."""
    affinity_tokens: int = 256
    """Cached tokens for which a request goes to the decode pod that holds them instead of to the least loaded."""

    def convert_at(self, entry: Waiting) -> float:
        """From then on its wait says that the prefill pool is the bottleneck."""
        if entry.objective_at == inf:
            return inf
        return entry.objective_at - self.convert_share * (entry.objective_at - entry.arrived)

    def takes_more(self, pod: PodSnapshot, now: float) -> bool:
        """A prefill pod that would otherwise soon have nothing to do."""
        if pod.busy_until is not None:
            return now >= pod.busy_until - self.ahead_seconds  # as in opens_at: to the last bit
        return pod.waiting_tokens < self.ahead_tokens


@dataclass(slots=True)
class PrefillGroup:
    """Prefill pods that can do the same, the one that is first done first."""

    keys: list[PrefillKey] = field(default_factory=list)
    pods: list[PodSnapshot] = field(default_factory=list)


class Fleet:
    """`put` a pod whenever something about it changed; snapshots themselves never change."""

    def __init__(self, law: ChoiceLaw | None = None) -> None:
        self.law = law or ChoiceLaw()
        self.pods: dict[str, PodSnapshot] = {}
        """By incarnation: all, also those that do not serve."""
        self.decodes: list[PodSnapshot] = []
        """That serve, the least loaded first."""
        self.largest_tokens = 0.0
        """KV of the largest of them."""
        self.reserved: tuple[str, str] | None = None
        """A pod's incarnation and the request that it is kept for."""
        self.version = 0
        """Grows with every change."""
        self._decode_keys: list[DecodeKey] = []
        self._keys: dict[str, Any] = {}
        self._sizes: dict[float, int] = {}
        self._groups: dict[str, dict[Coefficients | None, PrefillGroup]] = {}

    def put(self, pod: PodSnapshot, now: float) -> None:
        """Adds it or replaces what was known of that incarnation."""
        self.version += 1
        known = self.pods.get(pod.incarnation)
        if known is not None:
            self._take_out(known)
        if pod.role == "prefill" and pod.busy_until is None and pod.coefficients is not None:
            busy_until = now + (pod.prompt_seconds(pod.waiting_tokens) if pod.waiting_tokens else 0.0)
            pod = msgspec.structs.replace(pod, busy_until=busy_until)
        self.pods[pod.incarnation] = pod
        if not pod.serves():
            return
        if pod.role == "prefill":
            group = self._groups.setdefault(pod.revision, {}).setdefault(pod.coefficients, PrefillGroup())
            key = _prefill_key(pod)
            self._keys[pod.incarnation] = key
            index = bisect_left(group.keys, key)
            group.keys.insert(index, key)
            group.pods.insert(index, pod)
        else:
            decode_key = _decode_key(pod)
            self._keys[pod.incarnation] = decode_key
            index = bisect_left(self._decode_keys, decode_key)
            self._decode_keys.insert(index, decode_key)
            self.decodes.insert(index, pod)
            self._count_size(pod.kv_total_tokens or inf, 1)

    def drop(self, incarnation: str) -> None:
        """Idempotent."""
        self.version += 1
        pod = self.pods.pop(incarnation, None)
        if pod is not None:
            self._take_out(pod)

    def _take_out(self, pod: PodSnapshot) -> None:
        key = self._keys.pop(pod.incarnation, None)
        if key is None:
            return  # it did not serve
        if pod.role == "prefill":
            group = self._groups[pod.revision][pod.coefficients]
            index = _index(group.pods, bisect_left(group.keys, key), pod.incarnation)
            del group.keys[index], group.pods[index]
            if not group.keys:
                del self._groups[pod.revision][pod.coefficients]
        else:
            index = _index(self.decodes, bisect_left(self._decode_keys, key), pod.incarnation)
            del self._decode_keys[index], self.decodes[index]
            self._count_size(pod.kv_total_tokens or inf, -1)

    def _count_size(self, tokens: float, sign: int) -> None:
        self._sizes[tokens] = self._sizes.get(tokens, 0) + sign
        if not self._sizes[tokens]:
            del self._sizes[tokens]
        self.largest_tokens = max(self._sizes, default=0.0)

    def reserve(self, kept: tuple[str, str] | None) -> None:
        """Keeps a pod for a request, or none."""
        if kept != self.reserved:
            self.reserved = kept
            self.version += 1

    def decode_order(self) -> Iterator[PodSnapshot] | Sequence[PodSnapshot]:
        """Serving decode pods, those to be preferred first."""
        return reversed(self.decodes) if self.law.packs else self.decodes

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
        if self.reserved is not None and self.reserved[0] == pod.incarnation and self.reserved[1] != entry.id:
            return "no_room"
        known = pod.coefficients
        if known is None or not pod.running or pod.step_seconds(1, entry.tokens) <= limit_seconds:
            return ""
        # An objective that not even an empty pod would meet bounds nothing: it would only waste the fleet.
        return "slow" if known.step_seconds(1, entry.tokens) <= limit_seconds else ""

    def prefill_candidates(
        self, revision: str, tokens: int, avoid: frozenset[str], cached: Mapping[str, int]
    ) -> Iterator[PodSnapshot]:
        """Of each kind the pod that is first done, and those that hold some of the prompt."""
        for group in self._groups.get(revision, {}).values():
            for pod in group.pods:
                if pod.incarnation not in avoid and pod.room_tokens() >= tokens:
                    yield pod
                    break
        for incarnation in cached:
            held = self.pods.get(incarnation)
            if held is None or held.role != "prefill" or held.revision != revision or incarnation in avoid:
                continue
            if held.serves() and held.room_tokens() >= tokens:
                yield held

    def has_prefill(self, revision: str) -> bool:
        """A prefill pod of that revision serves."""
        return bool(self._groups.get(revision))

    def opens_at(self, now: float) -> float:
        """When the next prefill pod takes more work if nothing else is heard; infinite when none is known."""
        times = [
            group.pods[0].busy_until - self.law.ahead_seconds
            for groups in self._groups.values()
            for group in groups.values()
            if group.pods[0].busy_until is not None
        ]
        return min((time for time in times if time > now), default=inf)

    def room_tokens(self) -> float:
        """The most KV that one decode pod has free for anyone."""
        kept = self.reserved[0] if self.reserved else ""
        return max((pod.room_tokens() for pod in self.decodes if pod.has_slot() and pod.incarnation != kept), default=0)

    def service_seconds(self, tokens: int, cached_tokens: int = 0) -> float:
        """From an idle fleet to the first token; 0 when nobody knows."""
        best = inf
        for groups in self._groups.values():
            for group in groups.values():
                best = min(best, group.pods[0].prompt_seconds(tokens, cached_tokens))
        if not self.decodes:
            return 0.0
        decode = self.decodes[0]
        if best == inf:
            best = decode.prompt_seconds(tokens, cached_tokens)
        elif decode.role != "both":
            best += decode.link_seconds(tokens)
        return best + decode.step_seconds(1, tokens)


def _decode_key(pod: PodSnapshot) -> DecodeKey:
    filled = pod.kv_used_tokens / pod.kv_total_tokens if pod.kv_total_tokens else 0.0
    return (pod.step_seconds(1), pod.running, filled, pod.pod)


def _prefill_key(pod: PodSnapshot) -> PrefillKey:
    return (pod.busy_until or 0.0, pod.waiting_tokens, pod.running, pod.pod)


def _index(pods: Sequence[PodSnapshot], start: int, incarnation: str) -> int:
    """Two incarnations of one pod may have the same key."""
    while pods[start].incarnation != incarnation:
        start += 1
    return start
