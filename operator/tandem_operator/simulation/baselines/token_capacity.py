"""WVA's second rule: tokens in use and queued against the tokens that replicas can hold, ready and pending."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from tandem_operator.simulation.baselines.formula import Formula, Sizes
from tandem_operator.simulation.baselines.hpa import HpaState, Recommendations, stabilise
from tandem_operator.simulation.baselines.view import PoolView, View


def required_tokens(demand: float, anticipated: float, up: float = 0.85) -> float:
    """Capacity that is missing, counting what is pending; negative when nothing is."""
    return demand / up - anticipated


def spare_tokens(demand: float, supply: float, down: float = 0.70) -> float:
    """Capacity that could go."""
    return supply - demand / down


def compute_bound_tokens(prompt: float, output: float, step_tokens: float, max_sequences: int) -> float:
    """k2 without history: N = min(B O / (I + O), S) sequences in mid-life, at least one."""
    return max(min(step_tokens * output / (prompt + output), float(max_sequences)), 1.0) * (prompt + output / 2)


class CapacityState(HpaState, frozen=True):
    """Tokens in use seen at a full queue, the last ten, per pool."""

    full_prefill: tuple[float, ...] = ()
    full_decode: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TokenCapacity(Formula):
    """Each pool by itself; the rule knows no roles, but prefill is not asked to hold answers."""

    formula: ClassVar[str] = "WVA V2, token capacity"
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {
        "up": (0.5, 0.7, 0.85),
        "down": (0.35, 0.5, 0.7),
        "period_s": (15.0, 60.0),
        "down_window_s": (120.0, 300.0),
    }

    name: str = "token-capacity"
    period_s: float = 60.0
    up: float = 0.85
    down: float = 0.70
    kv_share: float = 0.8
    step_tokens: float = 8192.0
    full_queue: float = 5.0
    window_s: float = 60.0
    down_window_s: float = 300.0

    def initial(self, settings: Any) -> CapacityState:
        """No recommendation, no history."""
        return CapacityState()

    def size(self, view: View, state: Any) -> Sizes:
        """The rule."""
        prompt, output, hit = view.lengths(self.window_s)
        first, prefill, full_prefill, why = self._pool(
            view, view.prefill, state.prefill, state.full_prefill, prompt * (1.0 - hit), output
        )
        second, decode, full_decode, other = self._pool(
            view, view.decode, state.decode, state.full_decode, prompt, output
        )
        after = msgspec.structs.replace(
            state, prefill=first, decode=second, full_prefill=full_prefill, full_decode=full_decode
        )
        return Sizes(prefill, decode, after, f"prefill {why}; decode {other}")

    def _pool(
        self,
        view: View,
        pool: PoolView,
        before: Recommendations,
        full: tuple[float, ...],
        prompt: float,
        output: float,
    ) -> tuple[Recommendations, int, tuple[float, ...], str]:
        used = [float(told.kv_used_tokens) for told in pool.signals]
        seen = [use for use, queue in zip(used, pool.waiting_each, strict=True) if queue >= self.full_queue]
        full = (*full, *seen)[-10:]
        coefficients = pool.settings.coefficients
        by_memory = self.kv_share * coefficients.kv_tokens
        by_compute = compute_bound_tokens(prompt, output, self.step_tokens, coefficients.max_sequences)
        capacity = max(min(by_memory, sum(full) / len(full) if full else by_compute), 1.0)
        demand = sum(used) + pool.waiting * (prompt + (output if pool is view.decode else 0.0))
        wanted = pool.current
        required = required_tokens(demand, capacity * pool.current, self.up)
        spare = spare_tokens(demand, capacity * pool.ready, self.down)
        if required > 0:
            wanted += math.ceil(required / capacity - 1e-9)
        elif spare > 0 and not pool.silent:
            wanted -= math.floor(spare / capacity)
        kept, size = stabilise(before, view.now, pool.current, wanted, self.down_window_s)
        return kept, size, full, f"{demand:.0f} of {capacity * pool.current:.0f} tokens"
