"""What a router tells on GET /signals: cumulative since its incarnation began, so that readers may lose samples, and
summable over routers. Times are seconds of the router's monotonic clock, `monotonic_s` is its now.
"""

from __future__ import annotations

from typing import Final

import msgspec

SCHEMA: Final = 2
"""2: classes with objectives, slack of the queue, start-up records."""
SLACK_EDGES_SECONDS: Final = (-60.0, -10.0, -2.0, -1.0, -0.5, 0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Time to the objective deadline; bucket i is below edge i and not below edge i - 1, the last is what is above all."""


class HistogramSignals(msgspec.Struct, frozen=True):
    """By the edges of `goodput`; the last count is of all above."""

    counts: list[int]
    sum_s: float


class ClassSignals(msgspec.Struct, frozen=True, kw_only=True):
    """Every arrival ends in exactly one of met, missed, shed, failed, cancelled, refused."""

    arrivals: int
    """At the door, never at completion."""
    prompt_tokens: int
    """Of arrivals, cached or not."""
    prompt_tokens_squared: float
    cached_tokens: int
    """Of `prompt_tokens`, those that the pools were expected to hold already."""
    completed: int
    output_tokens: int
    """Of `completed` requests."""
    output_tokens_squared: float
    met: int
    missed: int
    shed: int
    failed: int
    cancelled: int
    refused: int
    ttft: HistogramSignals
    tpot: HistogramSignals


class QueueSignals(msgspec.Struct, frozen=True, kw_only=True):
    """What waits for a pod now, by SLACK_EDGES_SECONDS. `drain_tokens_per_s`: None while nothing had to wait."""

    requests: int
    tokens: int
    slack_requests: list[int]
    slack_tokens: list[int]
    drain_tokens_per_s: float | None = None


class PodView(msgspec.Struct, frozen=True, kw_only=True):
    """A pod as this router sees it."""

    pod: str
    role: str
    revision: str
    incarnation: str
    ready: bool
    draining: bool
    fenced: bool
    running: int
    waiting_tokens: int
    kv_used: int
    kv_total: int
    kv_link: str = ""
    """Transport of its KV; empty while the pod does not say."""


class Unconnected(msgspec.Struct, frozen=True):
    """An address that is listed and does not serve this router, and why."""

    address: str
    problem: str


class Startup(msgspec.Struct, frozen=True, kw_only=True):
    """When a pod came up, as seen from here; who knows Kubernetes adds when it was scheduled."""

    pod: str
    role: str
    incarnation: str
    loaded: float
    """It answered: a pod opens its port when the model is loaded."""
    ready: float | None = None
    scheduled: float | None = None
    flipped_from: str = ""
    """No process was started: a pod of this role took the other one."""
    flip_s: float | None = None
    """From the order to do so until it was ready."""


class DrainSignals(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the requests that were in a pod when it began to drain. The sum of the outcomes is
    inFlightAtStart when it is done."""

    pod: str
    role: str
    incarnation: str
    cause: str
    """order: POST /drain; terminated: the pod said that it is shutting down; flipped: that it takes another role."""
    in_flight_at_start: int = msgspec.field(name="inFlightAtStart")
    completed: int
    migrated: int
    lost: int
    cancelled: int
    """Their clients left."""
    seconds: float
    done: bool


class RouterSignals(msgspec.Struct, frozen=True, kw_only=True):
    """The document."""

    schema: int = SCHEMA
    router_id: str
    incarnation: str
    monotonic_s: float
    in_flight: int
    classes: dict[str, ClassSignals]
    queue: QueueSignals
    ttft: HistogramSignals
    """Of all classes."""
    tpot: HistogramSignals
    pods: list[PodView]
    not_connected: list[Unconnected]
    startups: list[Startup]
    drains: list[DrainSignals] = []
    """The latest ones."""


def read_router_signals(document: bytes) -> RouterSignals:
    """Raises ValueError that says what is wrong with it."""
    try:
        signals = msgspec.json.decode(document, type=RouterSignals)
    except msgspec.DecodeError as error:
        raise ValueError(f"not the signals of a router: {error}") from error
    if signals.schema != SCHEMA:
        raise ValueError(f"signals of schema {signals.schema}; this program reads schema {SCHEMA}")
    return signals
