"""What the scaling law sees at one moment: signals of routers and pods, facts of Kubernetes, each with its age.

Counters are cumulative since the start of the incarnation that tells them; every time is seconds of one clock, `now`'s.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

SLACK_EDGES_S: Final = (-60.0, -10.0, -2.0, -1.0, -0.5, 0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Time from now to the objective deadline; bucket i holds what is below edge i, the last what is above all."""

Role = Literal["prefill", "decode"]
Warmth = Literal["convert", "wake", "warm", "cold"]
"""What a start-up had to do, cheapest first: flip a role, wake a sleeper, prepared node, start from nothing."""


class ClassCounters(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of one class at one router, cumulative. Arrivals count at the door, never at completion."""

    arrivals: int = 0
    prompt_tokens: int = 0
    """Of arrivals, cached or not."""
    prompt_tokens_squared: float = 0.0
    """Sum of squares, for the spread of the work."""
    cached_tokens: int = 0
    """Of `prompt_tokens`, those that the pools are expected to hold already."""
    completed: int = 0
    output_tokens: int = 0
    """Of `completed` requests."""
    output_tokens_squared: float = 0.0
    met: int = 0
    missed: int = 0
    shed: int = 0
    failed: int = 0
    cancelled: int = 0


class QueueNow(msgspec.Struct, frozen=True, kw_only=True):
    """What waits at one router for a pod, by slack."""

    requests: int = 0
    tokens: int = 0
    slack_requests: tuple[int, ...] = ()
    """By SLACK_EDGES_S; empty when nothing waits."""
    slack_tokens: tuple[int, ...] = ()


class RouterSignals(msgspec.Struct, frozen=True, kw_only=True):
    """One router's account of itself. `at` is when it told, by the clock of `now`; older than that is its age."""

    router: str
    incarnation: str
    at: float
    classes: dict[str, ClassCounters] = {}
    queue: QueueNow = QueueNow()


class Iteration(msgspec.Struct, frozen=True):
    """One step of an engine: decode sequences, tokens of KV they held, prompt tokens in the step, duration."""

    sequences: int
    kv_tokens: int
    prefill_tokens: int
    seconds: float
    prefill_attended: float = 0.0
    """Over the prompt tokens, the tokens that each attends to: n (context + n / 2) of one chunk. 0: not told."""


class PodSignals(msgspec.Struct, frozen=True, kw_only=True):
    """One engine pod's account of itself."""

    at: float
    incarnation: str
    running: int = 0
    waiting: int = 0
    waiting_tokens: int = 0
    kv_used_tokens: int = 0
    kv_total_tokens: int = 0
    max_sequences: int = 0
    preemptions: int = 0
    prompt_tokens: int = 0
    """Computed here, cumulative."""
    output_tokens: int = 0
    kv_bytes: int = 0
    """Sent (prefill) or received (decode), cumulative."""
    kv_backlog_bytes: int = 0
    """Computed and not sent yet."""
    iterations: tuple[Iteration, ...] = ()
    """Recent, oldest first; those told before may be told again."""
    iterations_total: int = 0
    """Cumulative; says which of `iterations` are new."""


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """What Kubernetes knows of a model pod, and its signals when it tells any."""

    name: str
    role: Role
    created: float
    scheduled: float | None = None
    ready_since: float | None = None
    draining_since: float | None = None
    warmth: Warmth = "cold"
    signals: PodSignals | None = None

    @property
    def state(self) -> Literal["pending", "starting", "ready", "draining"]:
        """Where it is in its life."""
        if self.draining_since is not None:
            return "draining"
        if self.ready_since is not None:
            return "ready"
        return "starting" if self.scheduled is not None else "pending"


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """All there is to see. Nothing in it is inferred: what did not answer is absent or old."""

    routers: tuple[RouterSignals, ...] = ()
    routers_expected: int = 1
    """Router pods that should tell; fewer in `routers` means that a source is missing."""
    pods: tuple[Pod, ...] = ()
    pods_at: float = 0.0
    """When Kubernetes was asked for the pods."""
    gpus_grantable: int | None = None
    """Devices that the cluster could still give to this deployment; None: not known, no limit."""
