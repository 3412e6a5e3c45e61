"""Arrivals by time: fine bins for the last minute, coarse ones before. Sums over windows, and the noise of counts."""

from __future__ import annotations

import math

import msgspec

from tandem_operator.scaling.law import Law
from tandem_operator.scaling.state import Bin

COARSE = 10
"""Fine bins in a coarse one."""


class Sums(msgspec.Struct, frozen=True):
    """What a window holds."""

    requests: float = 0.0
    prompt_tokens: float = 0.0
    cached_tokens: float = 0.0
    squares: float = 0.0
    completed: float = 0.0
    output_tokens: float = 0.0
    output_squares: float = 0.0
    seconds: float = 0.0
    """Of the window, that bins cover."""

    @property
    def per_s(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds if self.seconds > 0 else 0.0

    def plus(self, other: Sums, share: float = 1.0) -> Sums:
        """Sum with a share of another."""
        return Sums(
            self.requests + share * other.requests,
            self.prompt_tokens + share * other.prompt_tokens,
            self.cached_tokens + share * other.cached_tokens,
            self.squares + share * other.squares,
            self.completed + share * other.completed,
            self.output_tokens + share * other.output_tokens,
            self.output_squares + share * other.output_squares,
            self.seconds + share * other.seconds,
        )


def spread(bins: tuple[Bin, ...], added: Sums, start: float, end: float, law: Law) -> tuple[Bin, ...]:
    """`bins` with `added` spread evenly over start to end; old ones merged and dropped."""
    horizon = law.bin_s * law.fine_bins + COARSE * law.bin_s * law.coarse_bins
    first = math.floor(max(start, end - horizon) / law.bin_s)
    last = math.ceil(end / law.bin_s)
    by_index = {round(b.start / law.bin_s): b for b in bins}
    changed = dict(by_index)
    for index in range(first, last):
        low, high = max(index * law.bin_s, start), min((index + 1) * law.bin_s, end)
        share = max(high - low, 0.0) / (end - start)
        home = index if index in changed else _home(index, by_index, law.bin_s)
        old = changed.get(home, Bin(home * law.bin_s, law.bin_s))
        changed[home] = _add(old, added, share)
    ordered = [changed[index] for index in sorted(changed)]
    return _merge(ordered, law, end)


def _home(index: int, bins: dict[int, Bin], bin_s: float) -> int:
    """The coarse bin that holds this fine one already, else itself."""
    coarse = index - index % COARSE
    held = bins.get(coarse)
    return coarse if held is not None and held.seconds > bin_s else index


def _add(old: Bin, added: Sums, share: float) -> Bin:
    return Bin(
        old.start,
        old.seconds,
        old.requests + share * added.requests,
        old.prompt_tokens + share * added.prompt_tokens,
        old.cached_tokens + share * added.cached_tokens,
        old.squares + share * added.squares,
        old.completed + share * added.completed,
        old.output_tokens + share * added.output_tokens,
        old.output_squares + share * added.output_squares,
    )


def _merge(bins: list[Bin], law: Law, end: float) -> tuple[Bin, ...]:
    """Bins older than the fine part become coarse; those older than all are dropped."""
    coarse_s = COARSE * law.bin_s
    fine_from = math.floor((end - law.bin_s * law.fine_bins) / coarse_s) * coarse_s
    oldest = fine_from - coarse_s * law.coarse_bins
    merged: list[Bin] = []
    for b in bins:
        if b.start < oldest:
            continue
        if b.start >= fine_from or b.seconds > law.bin_s:
            merged.append(b)
            continue
        start = math.floor(b.start / coarse_s) * coarse_s
        if merged and merged[-1].start == start and merged[-1].seconds > law.bin_s:
            merged[-1] = _add(merged[-1], _sums(b), 1.0)
        else:
            merged.append(_add(Bin(start, coarse_s), _sums(b), 1.0))
    return tuple(merged)


def _sums(b: Bin) -> Sums:
    return Sums(b.requests, b.prompt_tokens, b.cached_tokens, b.squares, b.completed, b.output_tokens, b.output_squares)


def window(bins: tuple[Bin, ...], since: float, seen: float, seconds: float) -> Sums:
    """Sums over the last `seconds` before `seen`; `seconds` of the result says how much of it was covered."""
    start = max(seen - seconds, since)
    requests = prompts = cached = squares = completed = outputs = output_squares = 0.0
    for b in reversed(bins):
        end = min(b.start + b.seconds, seen)
        if end <= start:
            break
        begin = max(b.start, since)
        if end <= begin:
            continue
        share = 1.0 if begin >= start else (end - start) / (end - begin)
        requests += share * b.requests
        prompts += share * b.prompt_tokens
        cached += share * b.cached_tokens
        squares += share * b.squares
        completed += share * b.completed
        outputs += share * b.output_tokens
        output_squares += share * b.output_squares
    covered = max(seen - start, 0.0)
    return Sums(requests, prompts, cached, squares, completed, outputs, output_squares, covered)


QUARTER_S = 30.0
"""A quarter of the time over which a trend is looked for: four counts show a slope and tell it from a jump."""


class Windows(msgspec.Struct, frozen=True):
    """Sums over the three windows of the law."""

    fast: Sums = Sums()
    medium: Sums = Sums()
    slow: Sums = Sums()
    covered_s: float = 0.0
    """How long arrivals have been seen at all."""
    quarters: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Requests in each half minute of the last two minutes, the newest first."""


def look_back(bins: tuple[Bin, ...], since: float | None, seen: float | None, law: Law) -> Windows:
    """All three."""
    if since is None or seen is None or seen <= since:
        return Windows()
    fast, medium, slow = (window(bins, since, seen, length) for length in (law.fast_s, law.medium_s, law.slow_s))
    halves = [window(bins, since, seen, (count + 1) * QUARTER_S).requests for count in range(4)]
    quarters = (halves[0], halves[1] - halves[0], halves[2] - halves[1], halves[3] - halves[2])
    return Windows(fast, medium, slow, seen - since, quarters)


def learn_noise(
    noise: tuple[float, float, float], bins: tuple[Bin, ...], after: float, seen: float, law: Law
) -> tuple[float, float, float]:
    """Dispersion (variance over mean) of counts in 2 s and in 10 s, from the bins that ended in (after, seen].

    A count is compared with the mean of the minute around it, so that a trend is not taken for noise.
    """
    short, long, weight = noise
    fine = [b for b in bins if b.seconds <= law.bin_s and b.start + b.seconds <= seen]
    if len(fine) < 10:
        return noise
    mean = sum(b.requests for b in fine) / len(fine)
    if mean <= 0:
        return noise
    for position, b in enumerate(fine):
        if b.start + b.seconds <= after:
            continue
        weight = min(weight + 1.0, NOISE_MEMORY)
        gain = 1.0 / (weight + 1.0)
        short += gain * (min((b.requests - mean) ** 2 / mean, NOISE_CLIP * (short + 1.0)) - short)
        if position >= 4 and round(b.start / law.bin_s) % 5 == 4:
            group = sum(x.requests for x in fine[position - 4 : position + 1])
            deviation = (group - 5 * mean) ** 2 / (5 * mean)
            long += min(5 * gain, 0.5) * (min(deviation, NOISE_CLIP * (long + 1.0)) - long)
    return short, long, weight


NOISE_MEMORY = 300.0
"""Bins that the dispersion remembers: ten minutes."""
NOISE_CLIP = 9.0
"""A single count adds at most this many times the dispersion known: a step of the load is not noise."""
