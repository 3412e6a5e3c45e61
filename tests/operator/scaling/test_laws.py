"""What must hold for every load, every setting and every moment."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_operator.scaling.couple import gpus_of, within_bounds, within_budget
from tandem_operator.scaling.decide import decide
from tandem_operator.scaling.decision import Decision, Record, Targets
from tandem_operator.scaling.demand import Demand, Target
from tandem_operator.scaling.law import Law
from tandem_operator.scaling.mix import Mix
from tandem_operator.scaling.observation import Observation
from tandem_operator.scaling.pools import need
from tandem_operator.scaling.replay import replay
from tandem_operator.scaling.settings import Settings
from tandem_operator.scaling.state import State

from tests.operator.scaling.story import LARGE, Story, reversals, waiting
from tests.operator.scaling.story import settings as make_settings

RATES = st.lists(st.sampled_from([0.0, 0.5, 3.0, 20.0, 60.0, 200.0, 900.0]), min_size=1, max_size=4)
POOL = st.fixed_dictionaries(
    {"min_replicas": st.integers(0, 4), "max_replicas": st.integers(4, 64), "gpus": st.sampled_from([1, 2, 4, 8])}
)
LENGTHS = st.sampled_from([(100, 20), (1000, 200), (8000, 50), (500, 1500), (40_000, 10)])


@given(RATES, POOL, POOL, LENGTHS, st.integers(1, 120), st.booleans())
@settings(max_examples=25)
def test_a_fleet_is_never_above_its_budget_nor_half_there(
    rates: list[float],
    prefill: dict[str, int],
    decode: dict[str, int],
    lengths: tuple[int, int],
    budget: int,
    zero: bool,
) -> None:
    chosen = make_settings(prefill=prefill, decode=decode, budget_gpus=budget, scale_to_zero=zero, idle_after_s=20.0)
    story = Story(chosen, prefill=2, decode=2)
    for rate in rates:
        story.run(24, rate, *lengths)
    for have, want in story.sizes():
        assert gpus_of(chosen, have, want) <= budget
        assert (have == 0) == (want == 0)


@given(RATES, POOL, POOL, LENGTHS)
@settings(max_examples=15)
def test_pools_stay_between_their_bounds(
    rates: list[float], prefill: dict[str, int], decode: dict[str, int], lengths: tuple[int, int]
) -> None:
    story = Story(make_settings(prefill=prefill, decode=decode), prefill=4, decode=4)
    for rate in rates:
        story.run(20, rate, *lengths)
    for have, want in story.sizes():
        assert max(prefill["min_replicas"], 1) <= have <= prefill["max_replicas"]
        assert max(decode["min_replicas"], 1) <= want <= decode["max_replicas"]


@given(st.floats(0.1, 400.0), st.floats(1.0, 4.0), LENGTHS, st.integers(0, 2000))
@settings(max_examples=25)
def test_more_load_never_asks_for_less(rate: float, factor: float, lengths: tuple[int, int], queued: int) -> None:
    less = Story(tick_s=5.0).run(30, 200, *lengths).run(70, rate, *lengths, queue=waiting(queued, 1.0))
    more = Story(tick_s=5.0).run(30, 200, *lengths).run(70, rate * factor, *lengths, queue=waiting(2 * queued, 1.0))
    assert_asks_for_more(less.decisions[-1], more.decisions[-1])


@given(
    st.sampled_from([(100, 100), (462, 183), (1000, 200), (500, 1500), (8000, 50)]),
    st.floats(0.0, 500.0),
    st.sampled_from([0.3, 2.0, 10.0]),
)
@settings(max_examples=40)
def test_more_arrivals_beside_the_same_backlog_never_ask_for_less(
    lengths: tuple[int, int], backlog_per_s: float, ttft_s: float
) -> None:
    """With load come more decoders that can take prompts, but what waits is not left to them."""
    chosen, mix = make_settings(), alike(*lengths)
    before = Targets(0, 0)
    for step in range(24):
        rate = 1.3**step
        found = need(
            steady(rate, mix, ttft_s),
            chosen,
            LARGE,
            LARGE,
            steady_per_s=rate,
            burst_per_s=1.2 * rate,
            backlog_per_s=backlog_per_s,
        ).targets
        assert found.prefill >= before.prefill
        assert found.decode >= before.decode
        before = found


def alike(prompt: int, output: int) -> Mix:
    return Mix(
        prompt_tokens=prompt, new_tokens=prompt, square=2 * prompt**2, output_tokens=output, output_square=2 * output**2
    )


def steady(rate_per_s: float, mix: Mix, ttft_s: float) -> Demand:
    return Demand(
        known=True,
        fast_per_s=rate_per_s,
        medium_per_s=rate_per_s,
        slow_per_s=rate_per_s,
        now_per_s=rate_per_s,
        growth=1.2,
        mix=mix,
        target=Target(ttft_s=ttft_s, tpot_s=0.05, miss=0.01),
    )


def assert_asks_for_more(first: Decision, second: Decision) -> None:
    less, more = first.explanation.wanted, second.explanation.wanted
    assert less is not None
    assert more is not None
    assert more.prefill >= less.prefill
    assert more.decode >= less.decode


@given(
    st.integers(1, 64),
    st.integers(1, 64),
    POOL,
    POOL,
    st.integers(0, 300),
    st.floats(0.1, 60.0),
    st.floats(0.1, 60.0),
    st.one_of(st.none(), st.floats(0.1, 4.0)),
)
@settings(max_examples=40)
def test_a_clamp_never_raises_a_role_and_gives_the_best_that_fits(
    want_p: int,
    want_d: int,
    prefill: dict[str, int],
    decode: dict[str, int],
    budget: int,
    need_p: float,
    need_d: float,
    ratio: float | None,
) -> None:
    chosen = make_settings(prefill=prefill, decode=decode, min_ratio=ratio)

    def share(p: int, d: int) -> float:
        return min(p / need_p, d / need_d, 1.0)

    got = within_budget(chosen, Targets(want_p, want_d), budget, share).targets
    assert got.prefill <= want_p
    assert got.decode <= want_d
    assert gpus_of(chosen, got.prefill, got.decode) <= budget
    if ratio is None and got.prefill and max(prefill["min_replicas"], decode["min_replicas"]) <= 1:
        every = [(p, d) for p in range(1, want_p + 1) for d in range(1, want_d + 1) if gpus_of(chosen, p, d) <= budget]
        assert share(got.prefill, got.decode) == pytest.approx(max(share(p, d) for p, d in every))


@given(st.integers(0, 80), st.integers(0, 80), POOL, POOL, st.floats(0.1, 3.0), st.floats(0.1, 3.0))
def test_bounds_only_bound(
    want_p: int, want_d: int, prefill: dict[str, int], decode: dict[str, int], low: float, width: float
) -> None:
    chosen = make_settings(prefill=prefill, decode=decode, min_ratio=low, max_ratio=low + width)
    got = within_bounds(chosen, Targets(want_p, want_d)).targets
    again = within_bounds(chosen, got).targets
    assert got.prefill >= min(want_p, prefill["max_replicas"])
    assert got.decode >= min(want_d, decode["max_replicas"])
    assert again.prefill >= got.prefill
    assert again.decode >= got.decode


@given(st.sampled_from(["routers", "prefill", "everything"]), st.floats(0, 200.0), st.floats(0, 200.0))
@settings(max_examples=6)
def test_nothing_is_removed_while_signals_are_stale(silent: str, before: float, after: float) -> None:
    story = Story(prefill=9, decode=9, startup_s=10.0).run(40, before)
    start = story.targets
    story.router_tells = silent == "prefill"
    story.pods_tell = silent == "routers"
    story.tick_s = 20.0
    story.run(1500, after)
    assert all(p >= start.prefill and d >= start.decode for p, d in story.sizes()[20:])


@pytest.mark.parametrize("replicas", range(1, 9))
@pytest.mark.parametrize("per_replica", [22.0, 32.0], ids=["prefill", "decode"])
def test_constant_load_never_sees_a_reversal(replicas: int, per_replica: float) -> None:
    """At the load that so many replicas of a role just bear, where a law that is not sure would flap."""
    story = Story(seed=replicas, prefill=replicas, decode=replicas, startup_s=30.0, tick_s=6.0)
    story.run(1200, per_replica * replicas * 0.97)
    assert reversals([p for p, _ in story.sizes()]) == 0
    assert reversals([d for _, d in story.sizes()]) == 0


@given(RATES, LENGTHS, st.integers(0, 500), st.booleans())
@settings(max_examples=8)
def test_a_decision_is_a_function_of_its_record_byte_for_byte(
    rates: list[float], lengths: tuple[int, int], queued: int, blind: bool
) -> None:
    story = Story(make_settings(budget_gpus=40), seed=7, keep_records=True)
    for rate in rates:
        story.run(20, rate, *lengths, queue=waiting(queued, 0.3), running=5)
        story.router_tells = not blind
    for record in story.records:
        text = msgspec.json.encode(record)
        read = msgspec.json.decode(text, type=Record)
        again = replay(read)
        assert msgspec.json.encode(again) == text


def test_a_decision_mutates_nothing() -> None:
    story = Story(keep_records=True).run(60, 80.0)
    record = story.records[-1]
    before = msgspec.json.encode(record)
    decide(record.settings, record.state_before, record.observation, record.time)
    assert msgspec.json.encode(record) == before


def test_a_state_that_knows_nothing_and_an_observation_of_nothing_are_no_trouble() -> None:
    decision = decide(make_settings(), State(), Observation(), 0.0)
    assert decision.targets == Targets(1, 1)


def test_every_mechanism_can_be_switched_off() -> None:
    switches = [name for name, kind in Law.__annotations__.items() if kind == "bool"]
    assert len(switches) == 8
    for name in switches:
        law = msgspec.structs.replace(Law(), **{name: False})
        chosen: Settings = make_settings(law=law)
        assert Story(chosen, seed=1).run(120, 100.0, running=50).targets.prefill >= 4
