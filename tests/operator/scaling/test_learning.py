"""What the law learns: start-up times, growth, noise, the day. And what it must not learn."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import msgspec
import pytest
from tandem_operator.scaling.bins import Sums, Windows, learn_noise, look_back, spread, window
from tandem_operator.scaling.demand import split_backlog
from tandem_operator.scaling.forecast import DAY_S, learn_season
from tandem_operator.scaling.law import Law
from tandem_operator.scaling.lead import learn_growth, learn_startups
from tandem_operator.scaling.mix import mix_of
from tandem_operator.scaling.observation import Iteration, Observation, Pod, PodSignals, RouterSignals
from tandem_operator.scaling.sanitise import SUSPECT, sanitise
from tandem_operator.scaling.signals import read, take_pods, take_routers
from tandem_operator.scaling.state import Bin, State

from tests.operator.scaling.story import Story, settings, waiting

LAW = Law()


def test_a_start_up_is_measured_and_becomes_the_lead() -> None:
    story = Story(prefill=1, decode=1, startup_s=40.0).run(60, 5.0).run(200, 80.0)
    assert story.decisions[0].explanation.facts["lead_s"] == pytest.approx(110.0)
    assert story.decisions[-1].explanation.facts["lead_s"] == pytest.approx(40.0, rel=0.3)


def test_windows_add_up_what_came_whatever_the_steps() -> None:
    bins: tuple[Bin, ...] = ()
    at = 0.0
    for step in (0.7, 2.0, 5.5, 1.1, 0.3) * 40:
        bins = spread(bins, Sums(requests=10 * step), at, at + step, LAW)
        at += step
    for seconds in (5.0, 60.0, 300.0):
        assert window(bins, 0.0, at, seconds).requests == pytest.approx(10 * seconds, rel=0.02)
    assert len(bins) < 70


@pytest.mark.parametrize("dispersion", [1.0, 6.0])
def test_the_dispersion_of_arrivals_is_measured(dispersion: float) -> None:
    random, bins, noise = Random(1), (), (1.0, 1.0, 30.0)
    for look in range(600):
        count = random.gauss(200.0, math.sqrt(200.0 * dispersion))
        bins = spread(bins, Sums(requests=count), look * 2.0, look * 2.0 + 2, LAW)
        noise = learn_noise(noise, bins, look * 2.0, look * 2.0 + 2, LAW)
    assert noise[0] == pytest.approx(dispersion, rel=0.35)


def test_growth_that_comes_again_and_again_is_insured_and_calm_takes_it_back() -> None:
    state, rates = State(), []
    for look in range(3000):
        at = look * 10.0
        rate = 10.0 * (2.0 if look < 1500 and look // 10 % 2 else 1.0)
        state = msgspec.structs.replace(
            state, bins=spread(state.bins, Sums(requests=rate * 10), at, at + 10, LAW), since=0.0, seen=at + 10
        )
        windows = look_back(state.bins, state.since, state.seen, LAW)
        growth, due = learn_growth(state, windows, 110.0, LAW)
        state = msgspec.structs.replace(state, growth=growth, growth_due=due)
        rates.append(math.exp(growth or 0.0))
    assert rates[1499] > 1.05
    assert rates[-1] < rates[1499]


def test_the_day_before_raises_the_plan_ahead_of_its_morning() -> None:
    """Load doubles at nine every day; before nine of the third day the forecast says so, and persistence does not."""
    state, expected = State(), {}
    lead_s = 1800.0
    for look in range(int(3 * DAY_S / 300)):
        at = look * 300.0
        rate = 20.0 if 9 <= at % DAY_S / 3600 < 18 else 10.0
        state = msgspec.structs.replace(
            state, bins=spread(state.bins, Sums(requests=rate * 300), at, at + 300, LAW), since=0.0, seen=at + 300
        )
        windows = look_back(state.bins, state.since, state.seen, LAW)
        season, expected[look] = learn_season(state, windows, lead_s, LAW)
        state = msgspec.structs.replace(state, season=season)
    before_nine = int((2 * DAY_S + 8.75 * 3600) / 300)
    assert expected[before_nine] > 15.0
    assert max(expected[look] for look in range(int(DAY_S / 300))) <= 12.0


def expected_of(rate_at: Callable[[float], float], until_s: float, noise: float = 1.0) -> dict[float, float]:
    """What is expected one start-up of 110 s ahead, looked at every 2 s; 0: nothing beyond what is."""
    random, state, expected = Random(7), State(noise=(noise, noise, 100.0)), {}
    for look in range(int(until_s / 2)):
        at = look * 2.0
        count = max(0.0, random.gauss(2 * rate_at(at), math.sqrt(2 * rate_at(at) * noise)))
        state = msgspec.structs.replace(
            state, bins=spread(state.bins, Sums(requests=count), at, at + 2, LAW), since=0.0, seen=at + 2
        )
        windows = look_back(state.bins, state.since, state.seen, LAW)
        season, rate = learn_season(state, windows, 110.0, LAW)
        state = msgspec.structs.replace(state, season=season)
        expected[at] = rate if rate > windows.medium.per_s else 0.0
    return expected


def test_a_rise_that_goes_on_is_met_before_it_comes_once_it_was_seen_to_go_on() -> None:
    expected = expected_of(lambda t: 20.0 + 60.0 * t / 600.0, 600.0)
    assert not any(expected[t] for t in range(0, 200, 2)), "nothing is known of it yet"
    late = {t: rate for t, rate in expected.items() if t >= 400}
    claimed = {t: rate for t, rate in late.items() if rate}
    assert len(claimed) >= 0.6 * len(late)
    assert all(rate == pytest.approx(20.0 + 60.0 * (t + 112) / 600.0, rel=0.25) for t, rate in claimed.items())


def test_jumps_and_noise_are_no_trends() -> None:
    jumps = expected_of(lambda t: 20.0 if t // 300 % 2 else 100.0, 3600.0)
    noise = expected_of(lambda t: 60.0, 3600.0, noise=6.0)
    assert sum(map(bool, jumps.values())) <= 0.01 * len(jumps)
    assert sum(map(bool, noise.values())) <= 0.01 * len(noise)


def test_without_a_forecast_nothing_is_expected() -> None:
    law = msgspec.structs.replace(LAW, forecast=False)
    assert learn_season(State(), look_back((), None, None, law), 100.0, law)[1] == 0.0


def test_what_waits_is_split_by_what_new_pods_can_still_save() -> None:
    def split(slack_s: float, lead_s: float) -> tuple[float, float]:
        router = RouterSignals(router="r", incarnation="a", at=0.0, queue=waiting(10, slack_s))
        observation = Observation(routers=(router,))
        taken = take_routers(State(), observation, 0.0, LAW)
        reading = read(taken, take_pods(State(), observation, 0.0), observation, 0.0, LAW)
        return split_backlog(reading, settings(), lead_s)[:2]

    assert split(-5.0, 3.0) == (0.0, 10.0)
    assert split(20.0, 3.0) == (10.0, 0.0)
    assert split(20.0, 110.0) == (0.0, 10.0)


def test_the_age_of_a_source_says_how_far_it_is_trusted() -> None:
    pod = Pod(name="p", role="prefill", created=0.0, scheduled=0.0, ready_since=1.0)
    story = Story().run(40, 5.0)
    seen = {}
    for silence in (1.0, 30.0, 90.0):
        now = story.now + silence
        observation = Observation(pods=(pod,))
        taken = take_routers(story.state, observation, now, LAW)
        seen[silence] = read(taken, {}, observation, now, LAW).load_quality
    assert list(seen.values()) == ["Fresh", "Stale", "Missing"]


@pytest.mark.parametrize(("grantable", "seconds"), [(4, 400.0), (None, 400.0), (0, 40.0)])
def test_a_wait_for_devices_that_nobody_had_is_no_start_up(grantable: int | None, seconds: float) -> None:
    state = State()
    for at, scheduled, ready in ((0.0, None, None), (370.0, 360.0, None), (400.0, 360.0, 400.0)):
        pod = Pod(name="p", role="prefill", created=0.0, scheduled=scheduled, ready_since=ready)
        starts = learn_startups(state, Observation(pods=(pod,), gpus_grantable=grantable), at)
        state = msgspec.structs.replace(state, started=starts.started, awaited=starts.awaited, starved=starts.starved)
    assert state.started["cold"].mean_s == pytest.approx(seconds)
    assert state.awaited == state.starved == ()


def test_a_step_that_took_no_number_of_seconds_is_kept_as_impossible() -> None:
    steps = (Iteration(4, 100, 0, math.nan), Iteration(4, 100, 0, 0.02), Iteration(0, 0, 8, 0.1, math.inf))
    signals = PodSignals(at=1.0, incarnation="a", iterations=steps, iterations_total=3)
    seen = Observation(pods=(Pod(name="p", role="decode", created=0.0, ready_since=0.0, signals=signals),))
    told = sanitise(seen).pods[0].signals
    assert told is not None
    assert [step.seconds for step in told.iterations] == [SUSPECT, 0.02, SUSPECT]
    assert msgspec.json.decode(msgspec.json.encode(sanitise(seen)), type=Observation) == sanitise(seen)


def swaying(prompt_tokens: float) -> Windows:
    """350 requests of 5 s, otherwise as the minute's 3,800: 1,250 tokens with twice that deviation."""
    square = 5 * 1250.0**2
    fast = Sums(350.0, 350 * prompt_tokens, 0.0, 350 * square, seconds=5.0)
    medium = Sums(3800.0, 3800 * 1250.0, 0.0, 3800 * square, seconds=60.0)
    return Windows(fast, medium, medium, 60.0)


def test_lengths_of_seconds_are_not_believed_when_arrivals_come_in_company() -> None:
    """S6: the mean prompt of 5 s swayed between 760 and 1,740 tokens with the clients that sent most just then."""
    calm, clustered = State(noise=(1.0, 1.0, 300.0)), State(noise=(2.0, 5.0, 300.0))
    for prompt_tokens in (600.0, 1900.0):
        assert mix_of(calm, swaying(prompt_tokens)).prompt_tokens == pytest.approx(prompt_tokens)
        assert mix_of(clustered, swaying(prompt_tokens)).prompt_tokens == pytest.approx(1250.0)
    assert mix_of(clustered, swaying(8000.0)).prompt_tokens == pytest.approx(8000.0), "a shift is one all the same"
