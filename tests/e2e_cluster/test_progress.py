from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st

from e2e.cluster.progress import BAR_COLUMNS, LOG_SECONDS, Progress, estimate_seconds, render, show_seconds


@given(st.integers(0, 5000), st.integers(1, 5000), st.floats(0, 1e5))
def test_the_bar_always_has_the_same_width_and_never_passes_the_end(done: int, total: int, elapsed: float) -> None:
    line = render("x", done, total, elapsed)
    assert len(line.split("[")[1].split("]")[0]) == BAR_COLUMNS
    assert int(line.split("] ")[1].split("%")[0]) <= 100


def test_time_left_follows_the_speed_so_far() -> None:
    assert estimate_seconds(100, 400, 60) == 180
    assert estimate_seconds(500, 400, 60) == 0
    assert estimate_seconds(1, 400, 60) is None


def test_seconds_are_shown_as_people_say_them() -> None:
    assert show_seconds(44.6) == "45 s"
    assert show_seconds(440) == "7 min 20 s"


def test_a_log_gets_a_line_now_and_then() -> None:
    now, out = 0.0, io.StringIO()
    progress = Progress("x", 100, clock=lambda: now, out=out)
    for _ in range(100):
        now += LOG_SECONDS / 10
        progress.step()
    progress.finish()
    lines = out.getvalue().splitlines()
    assert len(lines) == 10
    assert "50/100 packages" in lines[4]
    assert lines[-1].endswith("linking")
