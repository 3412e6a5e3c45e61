"""The scenarios exist by name, are what their pins say, and their made-up loads resemble the published ones."""

from __future__ import annotations

from itertools import islice, pairwise
from random import Random

import pytest
from tandem_operator.simulation.arrivals import Bursts, Lines, Sine, Steps, arrivals
from tandem_operator.simulation.demand import busy_pods
from tandem_operator.simulation.lengths import CHAT, LONG, SHORT, Drawn, Fixed, Shifting
from tandem_operator.simulation.pinned import LLAMA_70B_FP8_4XH100 as REPLICA
from tandem_operator.simulation.prefix_cache import PrefixCache
from tandem_operator.simulation.scenarios import NAMES, scenario, training
from tandem_operator.simulation.sessions import Sessions


@pytest.mark.parametrize("name", NAMES)
def test_every_scenario_can_be_made_and_sends_its_first_requests(name: str) -> None:
    made = scenario(name, quick=True)
    assert made.name == name
    first = list(islice(made.requests(0), 50))
    assert len(first) == 50
    assert all(a.arrived_s <= b.arrived_s for a, b in pairwise(first))
    assert 0 <= made.report_from_s < made.until_s
    assert (made.fleet.gpus is not None) == (name == "S6-gpucap")
    assert made.fleet.gpus == made.settings.budget_gpus
    assert made.fleet.gpus is None or 4 * (made.prefill_start + made.decode_start) <= made.fleet.gpus


def test_an_unknown_scenario_is_told_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no scenario 'S77'; there are S1, S1-30s"):
        scenario("S77")


def test_the_step_is_pinned() -> None:
    made = scenario("S1")
    rates = [made.workload.rate.at(t_s) for t_s in (0.0, 599.0, 600.0, 1499.0, 1500.0, 2699.0)]  # type: ignore[attr-defined]
    assert rates == [30.0, 30.0, 150.0, 150.0, 30.0, 30.0]
    assert (made.until_s, made.prefill_start, made.decode_start) == (2700.0, 3, 2)
    medians = [scenario(name).fleet.startup.median_s for name in ("S1", "S1-30s", "S1-3s")]
    assert medians == [110.0, 30.0, 3.0]


def test_the_pinned_replica_has_the_speed_that_published_fits_give() -> None:
    assert 30_000 < 1155 / REPLICA.prefill_seconds(1155) * 1.2 < 40_000, "prompt tokens per second"
    assert 0.030 < REPLICA.step_seconds(256, 256 * 1260) < 0.040
    assert 550_000 < REPLICA.kv_tokens < 700_000


def test_variants_differ_from_their_base_in_what_they_are_named_for() -> None:
    base = scenario("S6", quick=True)
    assert scenario("S6-metricloss", quick=True).metrics.loss == 0.2
    outage = scenario("S6-outage")
    assert outage.metrics.outages == outage.blind_s
    assert outage.blind_s[0][1] - outage.blind_s[0][0] == 300.0
    wrong = scenario("S6-modelerror", quick=True)
    believed, truth = wrong.settings.prefill.coefficients, wrong.fleet.prefill
    assert believed.prefill.theta1_s == pytest.approx(0.7 * truth.prefill.theta1_s)
    assert wrong.settings.decode.coefficients.decode.phi0_s == pytest.approx(1.3 * truth.decode.phi0_s)
    assert base.fleet.gpus is None
    assert (
        scenario("S5", quick=True).fleet.prefix_cache_tokens
        > scenario("S5-nohits", quick=True).fleet.prefix_cache_tokens
    )


def test_the_training_part_is_what_is_not_reported() -> None:
    made = scenario("S3", quick=True)
    part = training(made)
    assert (part.report_from_s, part.until_s) == (0.0, made.report_from_s)
    whole = scenario("S9", quick=True)
    assert training(whole) == whole


def test_lengths_have_the_means_of_the_traces_that_they_imitate() -> None:
    for lengths, prompt, output in ((CHAT, 1155, 211), (LONG, 15_325, 149), (SHORT, 294, 73)):
        random = Random(1)
        drawn = [lengths.draw(random, 0.0) for _ in range(20_000)]
        assert sum(p for p, _ in drawn) / len(drawn) == pytest.approx(prompt, rel=0.12)
        assert sum(o for _, o in drawn) / len(drawn) == pytest.approx(output, rel=0.12)


def test_lengths_may_be_correlated_and_may_shift() -> None:
    random = Random(2)
    flat = tuple(range(1, 17))
    drawn = [Drawn(flat, flat, correlation=-0.9).draw(random, 0.0) for _ in range(2000)]
    assert sum((p - 8.5) * (o - 8.5) for p, o in drawn) < 0
    shifting = Shifting(((0.0, Fixed(1, 2)), (10.0, Fixed(3, 4))))
    assert [shifting.draw(random, at) for at in (0.0, 9.9, 10.0)] == [(1, 2), (1, 2), (3, 4)]


@pytest.mark.parametrize("cv", [0.5, 1.0, 2.0])
def test_arrivals_keep_their_rate_and_their_unevenness(cv: float) -> None:
    times = list(arrivals(Steps(((0.0, 20.0),)), 2000.0, Random(3), cv))
    gaps = [b - a for a, b in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    assert len(times) == pytest.approx(40_000, rel=0.03)
    assert (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5 / mean == pytest.approx(cv, rel=0.05)


def test_rates_are_what_their_names_say() -> None:
    assert [Steps(((10.0, 2.0),)).at(t) for t in (0.0, 10.0)] == [0.0, 2.0]
    assert [Lines(((0.0, 1.0), (10.0, 3.0))).at(t) for t in (-1.0, 5.0, 20.0)] == [1.0, 2.0, 3.0]
    assert [round(Sine(5.0, 20.0, 100.0).at(t), 6) for t in (0.0, 25.0, 75.0)] == [12.5, 20.0, 5.0]
    burst = Bursts(1.0, 10.0, 100.0, 10.0, idle_s=20.0)
    assert [burst.at(t) for t in (0.0, 40.0, 49.9, 50.0, 80.0, 100.0)] == [1.0, 10.0, 10.0, 1.0, 0.0, 1.0]


def test_loads_need_four_to_forty_pods_at_their_peak() -> None:
    for name in ("S2", "S7"):
        busiest = max(prefill + decode for prefill, decode in busy_pods(scenario(name, quick=True)))
        assert 2.5 < busiest < 40, name


def test_conversations_share_prefixes_about_as_much_as_published() -> None:
    seen, hit, total = set(), 0, 0
    for request in Sessions(Steps(((0.0, 5.0),)), LONG, 300.0).requests(0):
        assert len(request.blocks) == -(-request.prompt_tokens // 512)
        held = next((i for i, block in enumerate(request.blocks) if block not in seen), len(request.blocks))
        hit += min(held * 512, request.prompt_tokens)
        total += request.prompt_tokens
        seen.update(request.blocks)
    assert 0.3 < hit / total < 0.75


def test_a_prefix_cache_hits_the_leading_run_and_forgets_the_least_recent() -> None:
    cache = PrefixCache(4)
    cache.store((1, 2, 3))
    assert (cache.hits((1, 2, 9)), cache.hits((2, 3))) == (2, 2)
    cache.store((7, 8))
    assert cache.hits((1, 2, 3)) == 2, "the end of the older prompt went first"
    assert cache.hits((7, 8)) == 2
