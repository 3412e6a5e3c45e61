"""One look: the state with all that an observation teaches, before anything is decided."""

from __future__ import annotations

import msgspec

from tandem_operator.scaling.bins import Windows, learn_noise, look_back
from tandem_operator.scaling.lead import lead_seconds, learn_growth, learn_startups
from tandem_operator.scaling.learn import coefficients_of, learn_coefficients, measured_flow, measured_held
from tandem_operator.scaling.mix import learn_output
from tandem_operator.scaling.observation import Observation
from tandem_operator.scaling.settings import Settings
from tandem_operator.scaling.signals import Reading, read, take_pods, take_routers
from tandem_operator.scaling.state import State


def perceive(settings: Settings, state: State, observation: Observation, now: float) -> tuple[State, Reading, Windows]:
    """The state with all that the observation teaches, the judgement of its sources, and what arrived lately."""
    law = settings.law
    taken = take_routers(state, observation, now, law)
    pods = take_pods(state, observation, now)
    reading = read(taken, pods, observation, now, law)
    starts = learn_startups(state, observation, now)
    noise = state.noise
    unseen_s = taken.seen - state.seen if taken.seen is not None and state.seen is not None else 0.0
    if taken.seen is not None and state.seen is not None and 0 < unseen_s <= law.missing_s:
        noise = learn_noise(noise, taken.bins, state.seen, taken.seen, law)
    learned, pods = learn_coefficients(state, observation, pods, settings, now)
    output_mean, output_square = learn_output(state, taken.added)
    arrived_at = now if reading.active or state.arrived_at is None else state.arrived_at
    if reading.load_quality != "Fresh" or unseen_s > law.missing_s:
        arrived_at = now
    state = msgspec.structs.replace(
        state,
        routers=taken.marks,
        pods=pods,
        bins=taken.bins,
        mixes=taken.mixes,
        since=taken.since,
        seen=taken.seen,
        started=starts.started,
        awaited=starts.awaited,
        starved=starts.starved,
        noise=noise,
        arrived_at=arrived_at,
        output_tokens_mean=output_mean,
        output_square_mean=output_square,
        learned=learned,
        held_tokens=measured_held(state.held_tokens, observation, pods),
    )
    windows = look_back(state.bins, state.since, state.seen, law)
    growth, due = learn_growth(state, windows, lead_seconds(starts.started, settings), law)
    flow = measured_flow(state.flow, observation, pods, coefficients_of(state, settings, "decode"), now)
    return msgspec.structs.replace(state, growth=growth, growth_due=due, flow=flow), reading, windows
