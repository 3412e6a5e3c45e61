"""The metrics path: what a scraper knows of the fleet, which is late, has gaps, and is now and then wrong."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeVar

import msgspec

from tandem_operator.scaling.observation import (
    ClassCounters,
    Observation,
    Pod,
    PodSignals,
    QueueNow,
    RouterSignals,
    Warmth,
)
from tandem_operator.simulation.decode import DecodePod
from tandem_operator.simulation.fleet import Fleet
from tandem_operator.simulation.prefill import PrefillPod
from tandem_operator.simulation.scenario import Metrics
from tandem_operator.simulation.supply import AnyPod

Told = TypeVar("Told", RouterSignals, PodSignals)
KEPT_SCRAPES = 3
"""Before each decision so many are really made: older ones could not be seen any more."""
ROUTER = "router-0"
IMPOSSIBLE = -1
"""What a source tells that lies: NaN has no integer."""
COUNTERS = ("preemptions", "prompt_tokens", "output_tokens", "kv_bytes", "iterations_total")


class Scraper:
    """Sources are drawn apart: one may answer while another does not."""

    def __init__(self, fleet: Fleet, metrics: Metrics, warmth: Warmth, period_s: float, seed: int) -> None:
        self._fleet = fleet
        self._metrics = metrics
        self._warmth = warmth
        self._period_s = period_s
        self._random = Random(f"{seed} scrapes")
        self._router: list[RouterSignals] = []
        self._pods: dict[str, list[PodSignals]] = {}
        self._router_life = 0
        self._router_base: dict[str, ClassCounters] = {}
        self._pod_lives: dict[str, int] = {}
        self._pod_bases: dict[str, PodSignals] = {}
        self._tick = 1
        self.asked = 0
        self.silent = 0
        """Of the sources that were asked, those that did not answer."""
        fleet.events.at(metrics.scrape_s, self._scrape)

    def observe(self) -> Observation:
        """What is known by now."""
        now = self._fleet.events.now
        seen = now - self._metrics.delay_s
        router = _latest(self._router, seen)
        pods = tuple(self._pod(pod, seen) for pool in (self._fleet.prefill, self._fleet.decode) for pod in pool.pods)
        return Observation(
            routers=(router,) if router else (),
            routers_expected=1,
            pods=pods,
            pods_at=now,
            gpus_grantable=self._fleet.supply.grantable,
        )

    def _pod(self, pod: AnyPod, seen: float) -> Pod:
        return Pod(
            name=pod.name,
            role=pod.role,
            created=pod.created_s,
            scheduled=pod.scheduled_s if pod.scheduled_s >= 0 else None,
            ready_since=pod.ready_s if pod.ready_s >= 0 else None,
            draining_since=pod.draining_s if pod.draining_s >= 0 else None,
            warmth="convert" if pod.flipped else self._warmth,
            signals=_latest(self._pods.get(pod.name, []), seen),
        )

    # --- one scrape ------------------------------------------------------------------------------------------

    def _scrape(self, _: None) -> None:
        now, metrics = self._fleet.events.now, self._metrics
        self._tick += 1
        self._fleet.events.at(self._tick * metrics.scrape_s, self._scrape)
        if not self._will_be_seen(now):
            return
        if any(start <= now < end for start, end in metrics.outages):
            self.asked += 1
            self.silent += 1
            return
        if self._answers():
            self._keep(self._router, self._router_signals(now))
        alive = [pod for pool in (self._fleet.prefill, self._fleet.decode) for pod in pool.pods if pod.ready_s >= 0]
        for pod in alive:
            if self._answers():
                self._keep(self._pods.setdefault(pod.name, []), self._pod_signals(pod, now))
        if len(self._pods) > 4 * len(alive) + 64:
            names = {pod.name for pod in alive}
            self._pods = {name: told for name, told in self._pods.items() if name in names}

    def _will_be_seen(self, now: float) -> bool:
        left = self._period_s - (now + self._metrics.delay_s) % self._period_s
        return left <= (KEPT_SCRAPES + 0.5) * self._metrics.scrape_s

    def _answers(self) -> bool:
        self.asked += 1
        answers = not self._metrics.loss or self._random.random() >= self._metrics.loss
        self.silent += not answers
        return answers

    def _is_wrong(self) -> bool:
        return self._metrics.nan > 0 and self._random.random() < self._metrics.nan

    def _is_reset(self) -> bool:
        return self._metrics.resets > 0 and self._random.random() < self._metrics.resets

    def _keep(self, told: list[Told], value: Told) -> None:
        told.append(value)
        if len(told) > KEPT_SCRAPES + int(self._metrics.delay_s / self._metrics.scrape_s) + 1:
            del told[0]

    def _router_signals(self, now: float) -> RouterSignals:
        classes = {name: counts.told() for name, counts in self._fleet.counts.items()}
        if self._is_reset():
            self._router_life += 1
            self._router_base = classes
        if self._router_base:
            classes = {name: _since(told, self._router_base.get(name)) for name, told in classes.items()}
        if self._is_wrong():
            classes = {name: msgspec.structs.replace(told, arrivals=IMPOSSIBLE) for name, told in classes.items()}
        return RouterSignals(
            router=ROUTER,
            incarnation=f"{ROUTER}.{self._router_life}",
            at=now,
            classes=classes,
            queue=self._queue(now),
        )

    def _queue(self, now: float) -> QueueNow:
        queue = self._fleet.router.queue
        if not queue:
            return QueueNow()
        slack = queue.slack(now)
        return QueueNow(
            requests=len(queue),
            tokens=queue.tokens,
            slack_requests=tuple(slack.requests),
            slack_tokens=tuple(slack.tokens),
        )

    def _pod_signals(self, pod: AnyPod, now: float) -> PodSignals:
        told = _prefill_signals(pod, now) if isinstance(pod, PrefillPod) else _decode_signals(pod, now)
        if self._is_reset():
            self._pod_lives[pod.name] = self._pod_lives.get(pod.name, 0) + 1
            self._pod_bases[pod.name] = told
        base = self._pod_bases.get(pod.name)
        if base is not None:
            since = {name: getattr(told, name) - getattr(base, name) for name in COUNTERS}
            fresh = min(len(told.iterations), since["iterations_total"])
            iterations = told.iterations[len(told.iterations) - fresh :]
            life = f"{pod.name}.{self._pod_lives[pod.name]}"
            told = msgspec.structs.replace(told, incarnation=life, iterations=iterations, **since)
        if self._is_wrong():
            lies = dict.fromkeys(("running", "waiting_tokens", "kv_used_tokens", "output_tokens"), IMPOSSIBLE)
            told = msgspec.structs.replace(told, iterations=(), **lies)
        return told


def _prefill_signals(pod: PrefillPod, now: float) -> PodSignals:
    return PodSignals(
        at=now,
        incarnation=f"{pod.name}.0",
        running=pod.requests - pod.waiting,
        waiting=pod.waiting,
        waiting_tokens=pod.waiting_tokens,
        kv_total_tokens=pod.coefficients.kv_tokens,
        max_sequences=pod.coefficients.max_sequences,
        prompt_tokens=pod.prompt_tokens,
        kv_bytes=pod.kv_bytes,
        kv_backlog_bytes=int(max(0.0, pod.port.free_s - now) * pod.coefficients.link.bytes_per_s),
        iterations=tuple(pod.iterations),
        iterations_total=pod.iterations_total,
    )


def _decode_signals(pod: DecodePod, now: float) -> PodSignals:
    return PodSignals(
        at=now,
        incarnation=f"{pod.name}.0",
        running=pod.sequences,
        waiting=pod.waiting,
        waiting_tokens=pod.prompt_tokens_waiting,
        kv_used_tokens=pod.kv_used(now),
        kv_total_tokens=pod.kv_total,
        max_sequences=pod.max_sequences,
        preemptions=pod.preemptions,
        prompt_tokens=pod.prompt_tokens,
        output_tokens=pod.output_now(now),
        kv_bytes=pod.kv_bytes,
        iterations=tuple(pod.iterations),
        iterations_total=pod.iterations_total,
    )


def _since(told: ClassCounters, base: ClassCounters | None) -> ClassCounters:
    if base is None:
        return told
    return ClassCounters(**{name: getattr(told, name) - getattr(base, name) for name in told.__struct_fields__})


def _latest(told: Sequence[Told], seen: float) -> Told | None:
    """The newest that has arrived."""
    for value in reversed(told):
        if value.at <= seen:
            return value
    return None
