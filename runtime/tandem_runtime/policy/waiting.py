"""A request in the queue, the bounds of the queue, and the law of its order, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

import msgspec

Order = Literal["deadline", "fifo"]
Expiry = Literal["timeout", "no_pod", "late"]


class Waiting(msgspec.Struct, frozen=True):
    """Two times are kept apart: `objective_at` orders and is never an error, `timeout_at` ends the request."""

    id: str
    arrived: float
    timeout_at: float
    tokens: int
    """A pod has to hold them before the next output token: the prompt and what was answered so far."""
    objective_at: float = inf
    """Arrival and bound of the first token."""
    priority: int = 0
    """Of its class; larger goes first."""
    service_seconds: float = 0.0
    """From an idle fleet to the first token. Less than that before `objective_at`, the request is late."""
    tenant: str = ""
    request_class: str = ""
    cached_tokens: int = 0
    """Of `tokens`, what the best pod is expected to hold already."""
    output_tokens: int = 0
    """Expected answer; KV room is asked for it too."""
    tpot_seconds: float = inf
    """Objective of its class."""
    resumed: bool = False
    """Was admitted once already: the bounds do not apply."""
    streaming: bool = False
    """The client has tokens already and sees a gap until it goes on: before everything else."""
    avoid: frozenset[str] = frozenset()
    """Incarnations of pods that failed it; until `avoid_until` it rather waits than go there again."""
    avoid_until: float = 0.0

    @property
    def late_at(self) -> float:
        """From then on not even an idle fleet would make its objective."""
        return self.objective_at - self.service_seconds

    def avoided(self, now: float) -> frozenset[str]:
        """The pods it does not go to now."""
        return self.avoid if now < self.avoid_until else frozenset()


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Bounds, so that an overload is answered early instead of ending in timeouts."""

    max_requests: int = 2048
    """Each holds a client connection and its prompt."""
    max_tokens: int = 8_000_000
    """Prompt tokens; about 64 MB of ids, and minutes of work for a pool."""
    wait_for_pods_seconds: float = 120.0
    """How long a request may wait while no decode pod is there at all: starting one takes a while."""


@dataclass(frozen=True, slots=True)
class QueueLaw:
    """Order of the queue. Late work is served after what can still be saved, and gets `late_share` of the fleet at
    least once it has waited `late_patience_seconds`: so nothing starves as long as anything is served."""

    order: Order = "deadline"
    late_margin_seconds: float = 0.15
    """Counted as late that much before: a prefill pod has up to 0.1 s of other work, a decode pod is amid a step."""
    sets_back: bool = True
    """When more waits than can be served in time, the largest prompts step back: each would cost several others
    their objective. They are served before what is late, and in time where there is room after all."""
    late_share: float = 0.1
    """Of dispatched tokens. Backlog cannot take the fleet from those who can still be served in time."""
    late_patience_seconds: float = 30.0
    sheds_late: bool = False
    """Late requests are refused instead of served; for clients that would not wait for them anyway."""
    tenant_burst_tokens: float = 65_536.0
    """A tenant goes by its deadlines until it had so much more than the least served tenant that waits."""
    pass_seconds: float = 1.0
    """How long smaller requests may pass one that no pod has room for; then the emptiest pod is kept for it."""
    short_tokens: int = 0
    """Prompts of so few uncached tokens need no prefill pod, and do not wait behind those that do."""
