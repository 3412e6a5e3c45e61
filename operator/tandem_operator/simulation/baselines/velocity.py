"""TokenScale's rule: token arrival rate over token velocity, per stage, with convertible decoders for bursts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from tandem_operator.simulation.baselines.capacity import decode_rate, prompt_line, step_line
from tandem_operator.simulation.baselines.formula import Formula, Sizes
from tandem_operator.simulation.baselines.hpa import HpaState, steady
from tandem_operator.simulation.baselines.view import PoolView, View


def velocity_replicas(tokens_per_s: float, velocity: float) -> int:
    """At least one."""
    return max(math.ceil(tokens_per_s / max(velocity, 1e-9) - 1e-9), 1)


@dataclass(frozen=True, kw_only=True)
class Velocity(Formula):
    """V_P of prompts, V_N of the network, V_D at which decode releases KV."""

    formula: ClassVar[str] = "TokenScale, token velocity"
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {
        "window_s": (5.0, 15.0, 60.0),
        "down_window_s": (30.0, 60.0, 120.0),
        "spare_decode": (0, 1, 2),
    }

    name: str = "token-velocity"
    period_s: float = 2.0
    convertible: bool = True
    window_s: float = 5.0
    down_window_s: float = 60.0
    spare_decode: int = 1
    """Convertible decoders kept beside what the velocity asks for."""

    def initial(self, settings: Any) -> HpaState:
        """No recommendation yet."""
        return HpaState()

    def size(self, view: View, state: Any) -> Sizes:
        """The rule."""
        prompt, output, hit = view.lengths(60.0)
        rates = view.rates(self.window_s)
        new = max(prompt * (1.0 - hit), 1.0)
        prefill, decode = view.settings.prefill.coefficients, view.settings.decode.coefficients
        compute = new / prompt_line(prefill, new)(new)
        network = prefill.link.bytes_per_s / max(prefill.kv_bytes_per_token, 1)
        _, requests = decode_rate(step_line(decode), decode, view.settings.objectives[0].tpot_s, prompt, output)
        released = requests * (prompt + output)
        by_prefill = velocity_replicas(rates.prompt_tokens * (1.0 - hit), min(compute, network))
        by_decode = velocity_replicas(rates.arrivals * (prompt + output), released) + self.spare_decode

        def wanted(pool: PoolView) -> int:
            return by_prefill if pool is view.prefill else by_decode

        sizes = steady(view, state, wanted, self.down_window_s)
        why = f"{rates.prompt_tokens:.0f} tokens/s over {min(compute, network):.0f} and {released:.0f} a replica"
        return sizes._replace(why=why)
