"""A policy sees what a scraper would: late, with gaps, and counters that only grow within an incarnation."""

from __future__ import annotations

from typing import Any

from tandem_operator.scaling.decision import Decision
from tandem_operator.scaling.observation import Observation
from tandem_operator.scaling.settings import Settings
from tandem_operator.simulation.arrivals import Steps
from tandem_operator.simulation.lengths import Fixed
from tandem_operator.simulation.run import simulate
from tandem_operator.simulation.scenario import Metrics
from tandem_operator.simulation.workload import Synthetic

from tests.operator.simulation.fleets import Planned, scenario

LOAD = Synthetic(Steps(((0.0, 5.0),)), Fixed(500, 50), 60.0)


class Watcher(Planned):
    """Keeps what it was shown."""

    seen: list[tuple[float, Observation]]

    def decide(self, settings: Settings, state: Any, observation: Observation, now: float) -> Decision:
        """Nothing changes."""
        self.seen.append((now, observation))
        return super().decide(settings, state, observation, now)


def watch(metrics: Metrics, period_s: float = 2.0) -> list[tuple[float, Observation]]:
    """All observations of a run."""
    watcher = Watcher(period_s=period_s)
    object.__setattr__(watcher, "seen", [])
    simulate(scenario(LOAD, (2, 1), metrics=metrics), watcher, 3)
    return watcher.seen


def test_signals_are_as_old_as_scrape_and_delay_make_them_and_counters_grow() -> None:
    seen = watch(Metrics(scrape_s=1.0, delay_s=0.2))[1:]
    assert all(0.2 <= now - observation.routers[0].at <= 1.2 for now, observation in seen)
    arrivals = [observation.routers[0].classes["interactive"].arrivals for _, observation in seen]
    assert arrivals == sorted(arrivals)
    assert 240 < arrivals[-1] < 340
    pods = seen[-1][1].pods
    assert [pod.role for pod in pods] == ["prefill", "prefill", "decode"]
    decode = pods[-1].signals
    assert decode is not None
    assert decode.iterations
    assert all(one.seconds == 0.01 for one in decode.iterations)


def test_lost_scrapes_leave_the_last_answer_which_grows_old() -> None:
    seen = watch(Metrics(loss=0.5), period_s=1.0)[5:]
    ages = [now - observation.routers[0].at for now, observation in seen]
    assert max(ages) > 1.2
    assert sum(age <= 1.2 for age in ages) > len(ages) / 4


def test_in_an_outage_nothing_answers_but_kubernetes_does() -> None:
    seen = dict(watch(Metrics(outages=((20.0, 40.0),))))
    during = seen[38.0]
    assert during.routers[0].at <= 20.0
    assert during.pods_at == 38.0
    assert seen[44.0].routers[0].at > 40.0


def test_a_reset_is_a_new_incarnation_whose_counters_start_again() -> None:
    seen = watch(Metrics(resets=0.2))[1:]
    lives = [(one.routers[0].incarnation, one.routers[0].classes["interactive"].arrivals) for _, one in seen]
    assert len({life for life, _ in lives}) > 1
    for life in {life for life, _ in lives}:
        told = [arrivals for other, arrivals in lives if other == life]
        assert told == sorted(told)


def test_a_lying_source_tells_impossible_values() -> None:
    seen = watch(Metrics(nan=0.5))[1:]
    assert any(one.routers[0].classes["interactive"].arrivals < 0 for _, one in seen)
    assert any(pod.signals is not None and pod.signals.kv_used_tokens < 0 for _, one in seen for pod in one.pods)
