"""A row's figures as people read them, the same in the terminal and in autoscaler.md."""

from __future__ import annotations

from typing import Final

from tests.bench.contest.rows import Row

HEADS: Final = (
    "seeds", "attainment", "95%", "completed", "GPU-h", "/O1", "goodput/O3", "recovery", "churn", "rev/h",
    "wrong ratio", "down",
)  # fmt: skip


def cells(row: Row) -> tuple[str, ...]:
    """In the order of HEADS."""
    low, high = row["ci"]["attainment"]
    return (
        str(row["seeds"]),
        f"{row['attainment']:.2%}",
        f"{low:.2%} - {high:.2%}",
        f"{row['completion']:.2%}",
        f"{row['gpu_h']:.1f}",
        ratio(row["gpu_h_over_o1"]),
        ratio(row["goodput_over_o3"]),
        "-" if row["recovery_s"] is None else f"{row['recovery_s']:.0f} s",
        f"{row['churn']:.0f}",
        f"{row['reversals_per_h']:.1f}",
        f"{row['wrong_ratio_s']:.0f} s",
        f"{row['scale_downs']:.0f}",
    )


def ratio(value: float | None) -> str:
    """A dash where there is nothing to compare with."""
    return "-" if value is None else f"{value:.2f}"
