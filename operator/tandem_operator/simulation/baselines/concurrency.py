"""Knative KPA's rule: concurrency over a stable and a panic window, per target; in panic never down."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from tandem_operator.simulation.baselines.formula import Formula, FormulaState, Sizes
from tandem_operator.simulation.baselines.view import PoolView, View


class Panic(msgspec.Struct, frozen=True):
    """Of one pool: since when, and the most pods asked for since."""

    since: float | None = None
    most: int = 0
    samples: tuple[tuple[float, float], ...] = ()
    """Time and concurrency, of the stable window."""


class ConcurrencyState(FormulaState, frozen=True):
    """Both pools."""

    prefill: Panic = Panic()
    decode: Panic = Panic()
    zero_since: float | None = None


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Constants of the rule, at its documented defaults."""

    stable_s: float = 60.0
    panic_s: float = 6.0
    panic_threshold: float = 2.0
    max_up: float = 1000.0
    max_down: float = 2.0


def concurrency_replicas(
    panic: Panic, now: float, ready: int, stable: float, burst: float, target: float, windows: Windows
) -> tuple[Panic, int]:
    """One tick of the rule."""
    pods = max(ready, 1)
    top, bottom = math.ceil(windows.max_up * pods), math.floor(pods / windows.max_down)
    by_stable, by_panic = math.ceil(stable / target - 1e-9), math.ceil(burst / target - 1e-9)
    over = by_panic / pods >= windows.panic_threshold
    wanted = min(max(by_stable, bottom), top)
    wanted_panic = min(max(by_panic, bottom), top)
    since, most = panic.since, panic.most
    if over:
        since, most = now, most if panic.since is not None else 0
    elif since is not None and since + windows.stable_s < now:
        since, most = None, 0
    if since is not None:
        most = max(most, wanted, wanted_panic)
        wanted = most
    return Panic(since, most, panic.samples), wanted


@dataclass(frozen=True, kw_only=True)
class Concurrency(Formula):
    """Requests inside and waiting per pool. Documented default target: 100 per pod at 70% of it."""

    formula: ClassVar[str] = "Knative KPA on concurrency"
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {
        "prefill_target": (1.0, 2.0, 4.0, 8.0, 70.0),
        "decode_target": (32.0, 70.0, 128.0),
    }
    to_zero: ClassVar[bool] = True

    name: str = "concurrency-panic"
    period_s: float = 2.0
    prefill_target: float = 70.0
    decode_target: float = 70.0
    grace_s: float = 30.0
    windows: Windows = Windows()

    def initial(self, settings: Any) -> ConcurrencyState:
        """Calm."""
        return ConcurrencyState()

    def size(self, view: View, state: Any) -> Sizes:
        """The rule."""
        first, prefill = self._pool(view.prefill, state.prefill, view.now, self.prefill_target)
        second, decode = self._pool(view.decode, state.decode, view.now, self.decode_target)
        idle = all(value == 0 for panic in (first, second) for _, value in panic.samples)
        since = (state.zero_since if state.zero_since is not None else view.now) if idle else None
        if since is not None and view.now - since >= self.windows.stable_s + self.grace_s:
            prefill = decode = 0
        after = msgspec.structs.replace(state, prefill=first, decode=second, zero_since=since)
        mood = "panic" if first.since is not None or second.since is not None else "stable"
        return Sizes(prefill, decode, after, f"{mood}: {prefill} and {decode} by concurrency")

    def _pool(self, pool: PoolView, panic: Panic, now: float, target: float) -> tuple[Panic, int]:
        kept = tuple(sample for sample in panic.samples if sample[0] > now - self.windows.stable_s)
        samples = (*kept, (now, pool.waiting + pool.running))
        recent = [value for at, value in samples if at > now - self.windows.panic_s]
        stable, burst = sum(value for _, value in samples) / len(samples), sum(recent) / len(recent)
        panic = msgspec.structs.replace(panic, samples=samples)
        return concurrency_replicas(panic, now, pool.ready, stable, burst, target, self.windows)
