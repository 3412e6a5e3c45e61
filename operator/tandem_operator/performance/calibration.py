"""Coefficients that follow what engines measure: the roofline first, iteration samples on top.

A calibration is a frozen value that holds all that is known, so it can be kept and replayed; `observe` gives the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec
from tandem_runtime.contracts.coefficients import Coefficients, Decode, Prefill

from tandem_operator.performance.fit import Fit, Line, Row, Vector, begin, deviation, learn, predict

MOST_SAMPLES: Final = 256
"""Of one kind and one call; of more, every so-many-th is taken: half a millisecond."""
PHYSICS_SHARE: Final = 0.5
"""Of the prior, where physics was not given: engines are assumed to use at least half of what a device has."""
SLOWEST: Final = 10.0
"""Times the prior: slower than that is another machine, not a slow one."""
UNKNOWN_SEQUENCE_SHARE: Final = 0.005
UNKNOWN_TOKEN_SHARE: Final = 1e-4
"""Scale of a coefficient of which the prior says nothing, against the constant of its line: per sequence, per token."""


class Step(Protocol):
    """One iteration of an engine; `scaling.observation.Iteration` is one."""

    @property
    def sequences(self) -> int: ...
    @property
    def kv_tokens(self) -> int: ...
    @property
    def prefill_tokens(self) -> int: ...
    @property
    def prefill_attended(self) -> float: ...
    @property
    def seconds(self) -> float: ...


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """The prior, and how far measurements have moved it."""

    prior: Coefficients
    prefill_line: Line
    decode_line: Line
    prefill: Fit
    decode: Fit

    @property
    def is_suspect(self) -> bool:
        """Whether too many samples were faster than physics: then nothing more should be concluded from them."""
        return self.prefill.is_suspect or self.decode.is_suspect

    @property
    def coefficients(self) -> Coefficients:
        """The best estimate."""
        return self._scaled(1.0, 1.0)

    @property
    def cautious(self) -> Coefficients:
        """What nine of ten steps stay below: for tests against an objective."""
        return self._scaled(self.prefill.p90, self.decode.p90)

    def _scaled(self, prefill_ratio: float, decode_ratio: float) -> Coefficients:
        theta = _times(self.prefill.gain, self.prefill_line.scale, prefill_ratio)
        phi = _times(self.decode.gain, self.decode_line.scale, decode_ratio)
        return self.prior.with_terms(Prefill(*theta), Decode(*phi))

    def prefill_deviation(self, new_tokens: int, context_tokens: int = 0) -> float:
        """Relative standard deviation of the predicted prefill: about 0.5 before any sample."""
        row = _prefill_features(new_tokens, context_tokens)
        return _relative(self.prefill_line, self.prefill, row)

    def decode_deviation(self, sequences: int, kv_tokens: int) -> float:
        """Relative standard deviation of the predicted step."""
        return _relative(self.decode_line, self.decode, (float(sequences), float(kv_tokens)))


def start(prior: Coefficients, physics: Coefficients | None = None, share: float = PHYSICS_SHARE) -> Calibration:
    """Knows the prior only. `physics`: what no measurement can be faster than (`roofline.limit`).

    Without it `share` of the prior stands for it; 0 when the prior is a guess and not a roofline.
    """
    theta, phi = prior.prefill, prior.decode
    floor = physics or prior.with_terms(
        Prefill(0.0, share * theta.theta1_s, share * theta.theta2_s),
        Decode(share * phi.phi0_s, 0.0, share * phi.phi2_s),
    )
    low, high = floor.prefill, floor.decode
    first = theta.theta0_s or theta.theta1_s * 100 or 1e-3
    prefill = _line(
        (theta.theta0_s, theta.theta1_s, theta.theta2_s),
        (first, first * UNKNOWN_TOKEN_SHARE * 10, first * UNKNOWN_TOKEN_SHARE**2),
        (0.0, low.theta1_s, low.theta2_s),
    )
    constant = phi.phi0_s or 1e-3
    decode = _line(
        (phi.phi0_s, phi.phi1_s, phi.phi2_s),
        (constant, constant * UNKNOWN_SEQUENCE_SHARE, constant * UNKNOWN_SEQUENCE_SHARE * UNKNOWN_TOKEN_SHARE),
        (high.phi0_s, high.phi1_s, high.phi2_s),
    )
    return Calibration(
        prior=prior, prefill_line=prefill, decode_line=decode, prefill=begin(prefill), decode=begin(decode)
    )


def observe(calibration: Calibration, steps: Sequence[Step]) -> Calibration:
    """The next calibration. Steps are sorted by what they did; those that computed prompts and decoded teach nothing.

    Give each step once: `iterations_total` of a pod says which are new.
    """
    prompts: list[Row] = []
    decodes: list[Row] = []
    for step in steps:
        sequences, tokens = step.sequences, step.prefill_tokens
        if sequences > 0 and not tokens:
            decodes.append((sequences, step.kv_tokens, step.seconds))
        elif tokens > 0 and not sequences:
            prompts.append((tokens, step.prefill_attended or tokens * tokens / 2, step.seconds))
    if not prompts and not decodes:
        return calibration
    return msgspec.structs.replace(
        calibration,
        prefill=learn(calibration.prefill_line, calibration.prefill, _thinned(prompts)),
        decode=learn(calibration.decode_line, calibration.decode, _thinned(decodes)),
    )


def _thinned(rows: list[Row]) -> list[Row]:
    return rows if len(rows) <= MOST_SAMPLES else rows[:: -(-len(rows) // MOST_SAMPLES)]


def _prefill_features(new_tokens: int, context_tokens: int) -> tuple[float, float]:
    return float(new_tokens), new_tokens * (context_tokens + new_tokens / 2)


def _relative(line: Line, fit: Fit, features: tuple[float, float]) -> float:
    return deviation(line, fit, *features) / max(predict(line, fit, *features), 1e-12)


def _times(gain: Vector, scale: Vector, ratio: float) -> Vector:
    return (gain[0] * scale[0] * ratio, gain[1] * scale[1] * ratio, gain[2] * scale[2] * ratio)


def _line(prior: Vector, unknown: Vector, floor: Vector) -> Line:
    scale = tuple(known or other for known, other in zip(prior, unknown, strict=True))
    least = tuple(low / unit for low, unit in zip(floor, scale, strict=True))
    begin_at = tuple(1.0 if known else 0.0 for known in prior)
    return Line(_vector(scale), _vector(begin_at), _vector(least), (SLOWEST, SLOWEST, SLOWEST))


def _vector(values: tuple[float, ...]) -> Vector:
    first, second, third = values
    return (first, second, third)
