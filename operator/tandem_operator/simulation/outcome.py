"""What a run was worth: every figure of the evaluation as a plain value, and time series for plots."""

from __future__ import annotations

import msgspec


class Quantiles(msgspec.Struct, frozen=True):
    """Seconds; of requests that had a first token (TTFT) or two tokens and an end (TPOT)."""

    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """Columns of equal length, one row per `step_s`; latency and attainment by time of arrival."""

    step_s: float
    t_s: tuple[float, ...] = ()
    arrivals_per_s: tuple[float, ...] = ()
    queue_requests: tuple[int, ...] = ()
    queue_tokens: tuple[int, ...] = ()
    prefill_ready: tuple[int, ...] = ()
    prefill_want: tuple[int, ...] = ()
    prefill_pods: tuple[int, ...] = ()
    """All that are billed: starting, ready, draining."""
    decode_ready: tuple[int, ...] = ()
    decode_want: tuple[int, ...] = ()
    decode_pods: tuple[int, ...] = ()
    prefill_needed: tuple[float, ...] = ()
    """Pods that would be busy all the time with the work that arrived: the fluid demand."""
    decode_needed: tuple[float, ...] = ()
    running: tuple[int, ...] = ()
    """Requests in decode pods."""
    gpus: tuple[int, ...] = ()
    attainment: tuple[float | None, ...] = ()
    """None: nothing arrived."""
    ttft_p50_s: tuple[float | None, ...] = ()
    ttft_p99_s: tuple[float | None, ...] = ()
    tpot_p50_s: tuple[float | None, ...] = ()
    tpot_p99_s: tuple[float | None, ...] = ()


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """A decision that changed a target, and why."""

    at_s: float
    prefill: int
    decode: int
    bottleneck: str
    summary: str
    suppressed_by: tuple[str, ...] = ()


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Counts are of requests that arrived in the reported part; GPU-hours and churn are of that part of time."""

    scenario: str
    policy: str
    seed: int
    seconds: float
    """Length of the reported part."""
    arrivals: int = 0
    completed: int = 0
    shed: int = 0
    failed: int = 0
    """Timed out."""
    in_flight: int = 0
    """Neither, at the end of the run."""
    met: int = 0
    attainment: float = 1.0
    """Met of all that count, 0 to 1. In flight at the end counts only if its deadline had passed."""
    token_attainment: float = 1.0
    """The same, weighted by output tokens."""
    class_attainment: dict[str, float] = {}
    blind_attainment: float | None = None
    """Of requests that arrived in an outage of the metrics; None: there was none."""
    completion: float = 1.0
    """Completed of all that count."""
    goodput_per_s: float = 0.0
    gpu_h: float = 0.0
    prefill_gpu_h: float = 0.0
    decode_gpu_h: float = 0.0
    goodput_per_gpu_h: float = 0.0
    """Met requests per GPU-hour."""
    fluid_gpu_h: float = 0.0
    """No fleet completes this load with fewer."""
    ttft_s: Quantiles = Quantiles()
    tpot_s: Quantiles = Quantiles()
    recovery_s: tuple[float | None, ...] = ()
    """One per upward step: until a 30 s attainment of 0.95 begins to hold for 60 s. None: not before the next step."""
    churn: int = 0
    """Sum of the changes of both targets."""
    reversals_per_h: float = 0.0
    """Changes of a target's direction."""
    scale_ups: int = 0
    """Pods that were asked for."""
    scale_downs: int = 0
    """Pods that were let go."""
    scale_downs_blind: int = 0
    """Of those, in an outage of the metrics."""
    flips: int = 0
    """Pods that took the other role in place."""
    wasted_startups: int = 0
    """Pods let go before they served."""
    lost_at_grace: int = 0
    """Requests that a killed pod still had; they are done again elsewhere."""
    preemptions: int = 0
    converted: int = 0
    """Prompts computed by decode pods."""
    scrapes_lost: float = 0.0
    """Share of what a scraper asked for that was not told; an outage counts once per scrape. Of the whole run."""
    cached_tokens: int = 0
    """Prompt tokens that needed no computing."""
    wrong_ratio_s: float = 0.0
    """Seconds in which one pool was short of the load mix's need and the other had a pod too many."""
    decision_p50_ms: float = 0.0
    """0 unless the caller gave a clock: a run is the same byte for byte without."""
    decision_p99_ms: float = 0.0
    series: Series = Series(step_s=10.0)
    moves: tuple[Move, ...] = ()
