"""An observation as a rival's scraper would have it: per pool, with what waits at the router counted at the pods.

The rivals' gateways send at once, so that requests wait in engines; ours holds them: theirs would have seen our queue.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from tandem_operator.scaling.observation import Iteration, Observation, Pod, PodSignals, Role
from tandem_operator.scaling.settings import PoolSettings, Settings
from tandem_operator.simulation.baselines.history import History, Totals


@dataclass(frozen=True)
class PoolView:
    """One pool. Lists go over ready pods that told something."""

    settings: PoolSettings
    ready: int
    current: int
    """All that do not drain: the `replicas` that a controller would read."""
    draining: int
    signals: tuple[PodSignals, ...]
    queued_requests: int
    """At the router, for this pool."""
    queued_tokens: int

    @property
    def coming(self) -> int:
        """Asked for and not ready."""
        return self.current - self.ready

    @property
    def silent(self) -> int:
        """Ready pods that told nothing."""
        return self.ready - len(self.signals)

    @property
    def waiting(self) -> float:
        """Requests that wait, at pods and at the router."""
        return float(sum(told.waiting for told in self.signals) + self.queued_requests)

    @property
    def running(self) -> float:
        """Requests in engines' batches."""
        return float(sum(told.running for told in self.signals))

    @property
    def waiting_each(self) -> list[float]:
        """Per pod, the router's queue shared out evenly."""
        share = self.queued_requests / max(len(self.signals), 1)
        return [told.waiting + share for told in self.signals]

    @property
    def waiting_tokens_each(self) -> list[float]:
        """Prompt tokens per pod, the router's queue shared out evenly."""
        share = self.queued_tokens / max(len(self.signals), 1)
        return [told.waiting_tokens + share for told in self.signals]

    @property
    def kv_each(self) -> list[float]:
        """Share of KV in use, 0 to 1, per pod."""
        return [told.kv_used_tokens / max(told.kv_total_tokens, 1) for told in self.signals]

    def iterations(self, limit: int = 64) -> list[Iteration]:
        """The latest, from every pod evenly."""
        each = max(limit // max(len(self.signals), 1), 1)
        return [step for told in self.signals for step in told.iterations[-each:]][:limit]


@dataclass(frozen=True)
class View:
    """What one decision of a formula sees."""

    settings: Settings
    observation: Observation
    history: History
    now: float

    def pool(self, role: Role) -> PoolView:
        """By role."""
        return self.prefill if role == "prefill" else self.decode

    @cached_property
    def prefill(self) -> PoolView:
        """The router's queue stands before it."""
        queues = [router.queue for router in self.observation.routers]
        requests, tokens = sum(queue.requests for queue in queues), sum(queue.tokens for queue in queues)
        return _pool(self.settings.prefill, "prefill", self.observation, max(requests, 0), max(tokens, 0))

    @cached_property
    def decode(self) -> PoolView:
        """Its queue stands at the pods."""
        return _pool(self.settings.decode, "decode", self.observation, 0, 0)

    def rates(self, window_s: float) -> Totals:
        """Increase per second of every counter."""
        return self.history.rates(window_s)

    def lengths(self, window_s: float, prompt: float = 1024.0, output: float = 256.0) -> tuple[float, float, float]:
        """Mean prompt tokens, output tokens and hit rate; the given ones where nothing is known."""
        rates = self.rates(window_s)
        if rates.arrivals > 0:
            prompt = rates.prompt_tokens / rates.arrivals
        if rates.completed > 0:
            output = rates.output_tokens / rates.completed
        hit = min(rates.cached_tokens / rates.prompt_tokens, 1.0) if rates.prompt_tokens > 0 else 0.0
        return max(prompt, 1.0), max(output, 1.0), hit


def _pool(settings: PoolSettings, role: Role, seen: Observation, requests: int, tokens: int) -> PoolView:
    pods: list[Pod] = [pod for pod in seen.pods if pod.role == role]
    ready = [pod for pod in pods if pod.state == "ready"]
    draining = sum(pod.state == "draining" for pod in pods)
    signals = tuple(pod.signals for pod in ready if pod.signals is not None and _possible(pod.signals))
    return PoolView(settings, len(ready), len(pods) - draining, draining, signals, requests, tokens)


def _possible(told: PodSignals) -> bool:
    """A scraper drops what is no number."""
    return told.running >= 0 and told.waiting >= 0 and 0 <= told.kv_used_tokens <= 4 * max(told.kv_total_tokens, 1)
