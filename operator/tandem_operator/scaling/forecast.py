"""What load may be one start-up from now: the trend of minutes and the day before. It may raise, never lower.

Each predictor is held against persistence by its pinball loss; one that is not better is not listened to.
"""

from __future__ import annotations

import math

from tandem_operator.scaling.bins import QUARTER_S, Windows
from tandem_operator.scaling.law import Law
from tandem_operator.scaling.state import Predictor, Season, State

DAY_S = 86400.0
SLOTS = 96
"""Quarters of an hour in a day."""
QUANTILE = 0.8
"""Being too low costs four times what being too high costs."""
SKILL_GAIN = 0.02
"""Weight of the newest comparison: the last fifty count."""
SKILL_NEEDED = 0.9
"""Loss over that of persistence below which a predictor is listened to."""
ENOUGH_COMPARED = 5
"""Comparisons before a predictor may be listened to: more than a start-up of them."""
COMPARE_PER_LEAD = 4
TREND_SIGMAS = 3.0
"""Deviations from chance at which a rise of two minutes is a trend."""
TREND_SHARE = 0.35
"""Of the mean slope, what each half minute must show, less half a deviation: a jump has all of it in one."""
SLOT_GAIN = 0.4
"""Weight of today in a slot's memory."""


def pinball(actual: float, predicted: float) -> float:
    """Loss of a quantile forecast."""
    return QUANTILE * (actual - predicted) if actual >= predicted else (1 - QUANTILE) * (predicted - actual)


def learn_season(state: State, windows: Windows, lead_s: float, law: Law) -> tuple[Season, float]:
    """The season after this look, and the rate that trusted predictors expect one start-up from now; 0: none."""
    season, seen = state.season, state.seen
    if not law.forecast or seen is None or windows.covered_s < law.medium_s:
        return season, 0.0
    rate = windows.medium.per_s
    slots = _remember(season, seen, rate)
    predictions = (_trend(windows, lead_s, state.noise[1]), _yesterday(season, seen, rate, lead_s))
    due, trend, day, still = list(season.due), season.trend, season.day, season.persistence
    no_trend = season.no_trend
    while due and due[0][0] <= seen:
        _, by_trend, by_day, before = due.pop(0)
        still = _score(still, rate, before)
        if by_trend > before:  # only where it claims one is it held against who sees none
            trend, no_trend = _score(trend, rate, by_trend), _score(no_trend, rate, before)
        if by_day >= 0:
            day = _score(day, rate, by_day)
    if not due or seen + lead_s - due[-1][0] >= lead_s / COMPARE_PER_LEAD:
        due.append((seen + lead_s, predictions[0], predictions[1], rate))
    season = Season(
        slots=slots,
        slot=_slot(seen),
        due=tuple(due[-3 * COMPARE_PER_LEAD :]),
        trend=trend,
        day=day,
        persistence=still,
        no_trend=no_trend,
    )
    trusted = [
        value
        for value, predictor, without in zip(predictions, (trend, day), (no_trend, still), strict=True)
        if value >= 0 and is_trusted(predictor, without)
    ]
    return season, max(trusted, default=0.0)


def is_trusted(predictor: Predictor, persistence: Predictor) -> bool:
    """Compared often enough, and better than expecting what is."""
    return predictor.count >= ENOUGH_COMPARED and predictor.loss < SKILL_NEEDED * persistence.loss


def _score(predictor: Predictor, actual: float, predicted: float) -> Predictor:
    gain = max(1 / (predictor.count + 1), SKILL_GAIN)
    loss = predictor.loss + gain * (pinball(actual, predicted) - predictor.loss)
    return Predictor(min(predictor.count + 1, 1000), loss)


def _slot(seconds: float) -> int:
    return int(seconds % DAY_S / DAY_S * SLOTS)


def _remember(season: Season, seen: float, rate: float) -> tuple[float, ...]:
    """Slots with this moment added: the mean of the slot's day so far; a new day weighs SLOT_GAIN."""
    slot = _slot(seen)
    slots = list(season.slots) if season.slots else [-1.0] * SLOTS
    old = slots[slot]
    if old < 0:
        slots[slot] = rate
    else:
        slots[slot] = old + (SLOT_GAIN if season.slot != slot else 0.01) * (rate - old)
    return tuple(slots)


def _yesterday(season: Season, seen: float, rate: float, lead_s: float) -> float:
    """Now x the change that yesterday saw from this slot to that of one start-up later; -1: not known."""
    if not season.slots:
        return -1.0
    here, there = _slot(seen), _slot(seen + lead_s)
    now, then = season.slots[here], season.slots[there]
    if now <= 0 or then < 0 or here == there:
        return -1.0
    return rate * min(then / now, 3.0)


def _trend(windows: Windows, lead_s: float, dispersion: float) -> float:
    """Where the slope of two minutes leads within one start-up; the rate itself while there is none; -1: not known.

    A slope is one when it is beyond chance and each half minute had its share of it: a jump is over, and leads nowhere.
    """
    q, rate = windows.quarters, windows.medium.per_s
    if windows.covered_s < 4 * QUARTER_S:
        return -1.0
    recent, before = q[0] + q[1], q[2] + q[3]
    span_s = 2 * QUARTER_S
    slope = (recent - before) / span_s**2
    chance = math.sqrt((recent + before) * max(dispersion, 1.0))
    least = TREND_SHARE * slope * QUARTER_S**2 - chance / math.sqrt(2) / 2
    if recent - before <= TREND_SIGMAS * chance or min(q[0] - q[1], q[1] - q[2], q[2] - q[3]) < least:
        return rate
    return recent / span_s + slope * (QUARTER_S + lead_s)
