"""Which decode pod serves a request and which prefill pod computes its prompt, from snapshots of the pods.

Never across revisions. Without a prefill pod the decode pod computes the prompt itself: service goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

HEADROOM_TOKENS = 32
"""The decode pod reserves the prompt and one page more before it takes a request."""


@dataclass(frozen=True, slots=True)
class PodSnapshot:
    """What the router knows of a pod now: its last report plus what was sent since and is not in it yet."""

    pod: str
    role: str
    revision: str
    incarnation: str
    ready: bool
    draining: bool = False
    running: int = 0
    """Requests in the pod, as far as known."""
    waiting_tokens: int = 0
    """Prompt tokens that wait for this pod to compute them."""
    kv_used_tokens: int = 0
    kv_total_tokens: int = 0
    """0 while the pod has not told."""
    slots: int | None = None
    """Credit left: requests it still takes from this router. None: it gives no credits, its state alone decides."""

    def serves(self) -> bool:
        """It takes new work."""
        return self.ready and not self.draining

    def has_room(self, kv_tokens: int) -> bool:
        """A request of that many tokens fits now."""
        if self.slots is not None and self.slots <= 0:
            return False
        return self.kv_total_tokens == 0 or self.kv_used_tokens + kv_tokens <= self.kv_total_tokens


@dataclass(frozen=True, slots=True)
class Pair:
    """Where a request goes. Without `prefill` the decode pod computes the prompt."""

    decode: PodSnapshot
    prefill: PodSnapshot | None


@dataclass(frozen=True, slots=True)
class Hold:
    """Why it goes nowhere yet. `too_large`: it never will, the largest pod holds `largest_tokens`."""

    reason: Literal["no_pod", "no_room", "avoided", "too_large"]
    largest_tokens: int = 0


def choose_pair(pods: Sequence[PodSnapshot], tokens: int, avoid: frozenset[str] = frozenset()) -> Pair | Hold:
    """`tokens`: prompt and what was emitted already. `avoid`: incarnations that failed this request before."""
    decodes = [pod for pod in pods if pod.role in ("decode", "both") and pod.serves()]
    if not decodes:
        return Hold("no_pod")
    need = tokens + HEADROOM_TOKENS
    largest = max(decodes, key=lambda pod: pod.kv_total_tokens or need).kv_total_tokens
    if 0 < largest < need and all(pod.kv_total_tokens for pod in decodes):
        return Hold("too_large", largest)
    free = [pod for pod in decodes if pod.has_room(need)]
    if not free:
        return Hold("no_room")
    fresh = [pod for pod in free if pod.incarnation not in avoid]
    if not fresh:
        return Hold("avoided")
    decode = min(fresh, key=decode_cost)
    return Pair(decode, choose_prefill(pods, decode, avoid))


def choose_prefill(pods: Iterable[PodSnapshot], decode: PodSnapshot, avoid: frozenset[str]) -> PodSnapshot | None:
    """The prefill pod of the same revision with the least work in front of it; None when there is none."""
    if decode.role == "both":
        return None
    able = [
        pod
        for pod in pods
        if pod.role == "prefill" and pod.serves() and pod.revision == decode.revision and pod.incarnation not in avoid
    ]
    return min(able, key=prefill_cost, default=None)


def decode_cost(pod: PodSnapshot) -> tuple[float, float, str]:
    """Fewest requests first, then the emptiest KV; the name makes it deterministic."""
    filled = pod.kv_used_tokens / pod.kv_total_tokens if pod.kv_total_tokens else 0.0
    return (pod.running, filled, pod.pod)


def prefill_cost(pod: PodSnapshot) -> tuple[int, int, str]:
    """Fewest prompt tokens first."""
    return (pod.waiting_tokens, pod.running, pod.pod)
