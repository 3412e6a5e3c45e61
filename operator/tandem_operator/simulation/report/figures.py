"""The figures of a run in a row, for tables on terminals and pages, and which runs no other beats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tandem_operator.simulation.outcome import Outcome

COLUMNS: Final = (
    "policy",
    "attainment",
    "completed",
    "GPU-h",
    "x fluid",
    "met per GPU-h",
    "TTFT p50 / p99",
    "TPOT p50 / p99",
    "recovery",
    "churn",
    "reversals/h",
)


def row_of(outcome: Outcome) -> tuple[str, ...]:
    """By COLUMNS, as people read them."""
    fluid = f"{outcome.gpu_h / outcome.fluid_gpu_h:.2f}" if outcome.fluid_gpu_h else "-"
    return (
        outcome.policy,
        f"{outcome.attainment:.2%}",
        f"{outcome.completion:.2%}",
        f"{outcome.gpu_h:.1f}",
        fluid,
        f"{outcome.goodput_per_gpu_h:.0f}",
        f"{short_s(outcome.ttft_s.p50)} / {short_s(outcome.ttft_s.p99)}",
        f"{short_s(outcome.tpot_s.p50)} / {short_s(outcome.tpot_s.p99)}",
        ", ".join("never" if one is None else f"{one:.0f} s" for one in outcome.recovery_s) or "-",
        str(outcome.churn),
        f"{outcome.reversals_per_h:.1f}",
    )


def short_s(seconds: float) -> str:
    """Milliseconds below one second."""
    return f"{seconds * 1e3:.0f} ms" if seconds < 0.9995 else f"{seconds:.1f} s"


def pareto_front(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that no other one beats in attainment and GPU-hours both. Oracles know what no policy can: left out."""
    causal = [one for one in outcomes if not one.policy.startswith("oracle")]
    return [
        one
        for one in causal
        if not any(
            other.attainment >= one.attainment
            and other.gpu_h <= one.gpu_h
            and (other.attainment, other.gpu_h) != (one.attainment, one.gpu_h)
            for other in causal
        )
    ]
