"""What pods teach: coefficients from their engine steps, and how many tokens they really have to generate."""

from __future__ import annotations

import msgspec
from tandem_runtime.contracts.coefficients import Coefficients, Decode, Prefill

from tandem_operator.performance.calibration import PHYSICS_SHARE, Calibration, observe, start
from tandem_operator.scaling.law import Law
from tandem_operator.scaling.observation import Iteration, Observation, Role
from tandem_operator.scaling.settings import Settings
from tandem_operator.scaling.state import PodMark, State

PER_POD = 16
"""Steps learned from one pod and decision: the newest; neighbours say nearly the same."""
GUESS = 3.0
"""Without a roofline, coefficients begin at this many times what it would say: what a cautious person would guess."""


def learn_coefficients(
    state: State, observation: Observation, marks: dict[str, PodMark], settings: Settings, now: float
) -> tuple[dict[str, Calibration], dict[str, PodMark]]:
    """Calibrations by role, and the marks with what was learned from. Pods take turns when there are many."""
    law = settings.law
    learned: dict[str, Calibration] = {}
    marks = dict(marks)
    for role in ("prefill", "decode"):
        old = state.learned.get(role)
        prior = _prior(settings, role)
        calibration = old if old is not None and old.prior == prior else start(prior, share=_physics_share(law))
        if law.calibrate:
            steps = _new_steps(observation, marks, role, now, law)
            calibration = observe(calibration, steps) if steps else calibration
        learned[role] = calibration
    return learned, marks


def _prior(settings: Settings, role: str) -> Coefficients:
    prior = settings.prefill.coefficients if role == "prefill" else settings.decode.coefficients
    if settings.law.use_prior:
        return prior
    p, d = prior.prefill, prior.decode
    return prior.with_terms(
        Prefill(p.theta0_s * GUESS, p.theta1_s * GUESS, p.theta2_s * GUESS),
        Decode(d.phi0_s * GUESS, d.phi1_s * GUESS, d.phi2_s * GUESS),
    )


def _physics_share(law: Law) -> float:
    """Of the prior, what no step can be faster than: nothing where the prior is a guess."""
    return PHYSICS_SHARE if law.use_prior else 0.0


def _new_steps(observation: Observation, marks: dict[str, PodMark], role: str, now: float, law: Law) -> list[Iteration]:
    """At most `calibration_iterations` steps that were not told before; `marks` is brought up to date."""
    pods = [pod for pod in observation.pods if pod.role == role and pod.name in marks and pod.signals is not None]
    if not pods:
        return []
    first = int(now / law.busy_s) % len(pods)
    steps: list[Iteration] = []
    for pod in pods[first:] + pods[:first]:
        mark, signals = marks[pod.name], pod.signals
        assert signals is not None
        if signals.incarnation != mark.incarnation or signals.at < mark.at:
            continue
        fresh = min(max(signals.iterations_total - mark.iterations_total, 0), len(signals.iterations), PER_POD)
        if fresh:
            steps.extend(signals.iterations[-fresh:])
        marks[pod.name] = msgspec.structs.replace(mark, iterations_total=signals.iterations_total)
        if len(steps) >= law.calibration_iterations:
            break
    return steps


def coefficients_of(state: State, settings: Settings, role: Role) -> Coefficients:
    """The best estimate."""
    calibration = state.learned.get(role)
    if calibration is None:
        return settings.prefill.coefficients if role == "prefill" else settings.decode.coefficients
    return calibration.coefficients


def measured_held(before: float, observation: Observation, marks: dict[str, PodMark]) -> float:
    """KV tokens per sequence in decode pods; fades over ten looks; as before while too few run."""
    sequences = held = 0
    for pod in observation.pods:
        mark = marks.get(pod.name)
        if pod.role == "decode" and pod.ready_since is not None and mark is not None:
            sequences += mark.running + mark.waiting
            held += mark.kv_used_tokens
    if sequences < HELD_ENOUGH:
        return before
    now = held / sequences
    return before + HELD_GAIN * (now - before) if before > 0 else now


HELD_ENOUGH = 20
"""Sequences whose mean says something."""
HELD_GAIN = 0.1


def measured_flow(
    flow: tuple[tuple[float, float], ...],
    observation: Observation,
    marks: dict[str, PodMark],
    decode: Coefficients,
    now: float,
) -> tuple[tuple[float, float], ...]:
    """Output tokens per second that running sequences stand for, lately: (time, tokens/s), oldest first.

    Answers that became longer show here first: they pile up before the first of them has ended. A pod that tells
    nothing counts as the mean of the others.
    """
    if flow and now - flow[-1][0] < FLOW_EVERY_S:
        return flow
    told = silent = 0
    tokens_per_s = 0.0
    for pod in observation.pods:
        if pod.role != "decode" or pod.ready_since is None:
            continue
        mark = marks.get(pod.name)
        if mark is None or mark.running < 0:
            silent += 1
            continue
        told += 1
        if mark.running > 0:
            step_s = decode.step_seconds(mark.running, mark.kv_used_tokens)
            tokens_per_s += mark.running / step_s if step_s > 0 else 0.0
    if not told:
        return flow
    return (*flow, (now, tokens_per_s * (told + silent) / told))[-FLOW_KEPT:]


FLOW_EVERY_S = 4.0
"""Half a residence of a short answer: looks closer together say the same."""
FLOW_KEPT = 6
"""Twenty seconds."""
