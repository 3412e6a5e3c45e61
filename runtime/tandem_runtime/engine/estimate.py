"""How long this pod's steps take: coefficients learnt from the steps themselves, by least squares over recent ones.

Relative errors count, so that short and long steps weigh alike; older steps fade. Pure Python, three unknowns a line.
"""

from __future__ import annotations

from itertools import combinations
from math import floor, log10
from typing import Final

from tandem_runtime.contracts.coefficients import SCHEMA, Coefficients, Decode, Link, Prefill
from tandem_runtime.engine.executor import Capacity

FADE: Final = 0.99
"""Weight of a step when the next one comes: the last hundred count."""
ENOUGH: Final = 4
"""Steps of a kind before anything is said of it."""
OUTLIER: Final = 3.0
"""A step that much slower than predicted was disturbed; it counts as this much slower."""
SETTLED: Final = 16
"""Steps before one can be called an outlier."""
LEAST_ADDED: Final = 0.1
"""Share of a step that does both which its prompts take at least; the rest of it is noise of the estimate."""
REFIT: Final = 8
"""Steps after which the fit is made anew; it costs as much as a tenth of a small model's step."""
DIGITS: Final = 2
"""Of a published coefficient: alike pods say the same, and a pod does not change its mind with every step."""
FITS_APART: Final = 4
"""Between two looks whether routers should hear something new: estimates of sizes that hardly occur waver."""
CHANGED: Final = 0.1
"""Relative change of a prediction that is worth telling."""
RIDGE: Final = 1e-4
"""Share of the first unknown's weight that pulls each unknown to zero: of equal explanations the smallest wins."""
PREFILL_SCALE: Final = (1.0, 256.0, 256.0**2)
DECODE_SCALE: Final = (1.0, 8.0, 4096.0)
"""What one unit of a feature is, so that the unknowns are of one size."""

Row = tuple[float, float, float]


class Line:
    """seconds = a f0 + b f1 + c f2 with a, b, c at least 0."""

    def __init__(self, scale: Row) -> None:
        self.samples = 0
        self._scale = scale
        self._squares = [[0.0] * 3 for _ in range(3)]
        self._products = [0.0] * 3
        self.fits = 0
        """How often the unknowns were found anew."""
        self._unknowns: Row = (0.0, 0.0, 0.0)
        self._fitted_at = 0

    def learn(self, features: Row, seconds: float) -> None:
        """One step."""
        if seconds <= 0:
            return
        if self.samples >= SETTLED:
            seconds = min(seconds, OUTLIER * max(self.predict(features), 1e-9))
        row = [feature / unit / seconds for feature, unit in zip(features, self._scale, strict=True)]
        for i in range(3):
            self._products[i] = FADE * self._products[i] + row[i]
            for j in range(3):
                self._squares[i][j] = FADE * self._squares[i][j] + row[i] * row[j]
        self.samples += 1

    def predict(self, features: Row) -> float:
        """Seconds; 0 before the first step."""
        return sum(x * y for x, y in zip(self.unknowns(), features, strict=True))

    def unknowns(self) -> Row:
        """a, b, c, found anew when enough steps have come."""
        if self.samples - self._fitted_at >= (REFIT if self._fitted_at >= SETTLED else 1):
            found = self._solve()
            self._unknowns = (found[0] / self._scale[0], found[1] / self._scale[1], found[2] / self._scale[2])
            self._fitted_at = self.samples
            self.fits += 1
        return self._unknowns

    def _solve(self) -> list[float]:
        """The best of all fits that use some of the unknowns and are nowhere negative."""
        best, least = [0.0] * 3, 0.0
        ridge = RIDGE * max(self._squares[i][i] for i in range(3))
        for size in (1, 2, 3):
            for used in combinations(range(3), size):
                found = _solve_some(self._squares, self._products, used, ridge)
                if found is None or min(found) < 0:
                    continue
                # Sum of squared errors, without its constant: x'Ax - 2 b'x = -b'x at the optimum.
                error = -sum(found[i] * self._products[i] for i in range(3))
                if error < least:
                    best, least = found, error
        return best


def _solve_some(
    squares: list[list[float]], products: list[float], used: tuple[int, ...], ridge: float
) -> list[float] | None:
    """Normal equations of the unknowns `used`, by Gaussian elimination; the others are 0. None when singular."""
    rows = [[squares[i][j] + (ridge if i == j else 0.0) for j in used] + [products[i]] for i in used]
    for pivot in range(len(used)):
        if rows[pivot][pivot] <= 1e-300:
            return None
        for row in rows[pivot + 1 :]:
            factor = row[pivot] / rows[pivot][pivot]
            for column in range(pivot, len(used) + 1):
                row[column] -= factor * rows[pivot][column]
    solved = [0.0] * len(used)
    for i in reversed(range(len(used))):
        known = sum(rows[i][j] * solved[j] for j in range(i + 1, len(used)))
        solved[i] = (rows[i][-1] - known) / rows[i][i]
    found = [0.0] * 3
    for place, value in zip(used, solved, strict=True):
        found[place] = value
    return found


class StepEstimate:
    """Learns from every step. Says nothing of a kind of step of which it has seen too few."""

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._prefill, self._decode = Line(PREFILL_SCALE), Line(DECODE_SCALE)
        self._told: Coefficients | None = None
        self._told_at = -1

    def learn(self, rows: int, kv_tokens: int, prefill_tokens: int, attended: float, seconds: float) -> None:
        """What a step did (as Iteration says it), and how long it took. A draft is computed as a sequence's token is:
        it counts as a row of its own, but reads no KV of its own."""
        if prefill_tokens and rows:
            # What the prompts added: a busy pod has few steps without anybody decoding.
            if self._decode.samples >= ENOUGH:
                added = seconds - self.step_seconds(rows, kv_tokens)
                self._prefill.learn((1.0, prefill_tokens, attended), max(added, LEAST_ADDED * seconds))
        elif prefill_tokens:
            self._prefill.learn((1.0, prefill_tokens, attended), seconds)
        elif rows:
            self._decode.learn((1.0, rows, kv_tokens), seconds)

    @property
    def known(self) -> bool:
        """Whether steps of both kinds can be predicted."""
        return min(self._prefill.samples, self._decode.samples) >= ENOUGH

    def prefill_seconds(self, tokens: int, attended: float) -> float:
        """Of one chunk; 0 before any was seen."""
        return self._prefill.predict((1.0, tokens, attended))

    def step_seconds(self, rows: int, kv_tokens: int) -> float:
        """Of one decode step, a row for each sequence and for each draft; 0 before any was seen."""
        return self._decode.predict((1.0, rows, kv_tokens))

    def tokens_within(self, seconds: float, context: int) -> int:
        """The longest chunk behind `context` tokens that takes no longer."""
        first, second, third = self._prefill.unknowns()
        left, slope = seconds - first, second + third * context
        if left <= 0 or slope <= 0:
            return 0 if left <= 0 else 1 << 30
        # third / 2 n^2 + slope n = left, in the form that stays exact when third is 0.
        return int(2 * left / (slope + (slope * slope + 2 * third * left) ** 0.5))

    def efficient_tokens(self, times: float) -> int:
        """The chunk whose tokens take so many times as long as what every chunk takes; 1 where chunks cost nothing."""
        first, second, _ = self._prefill.unknowns()
        return max(1, int(times * first / second)) if second > 0 else 1

    def coefficients(self) -> Coefficients | None:
        """What routers are told: the same object until it would predict something else. None while too little is
        known. Of the link nothing is known here."""
        if not self.known:
            return None
        thetas, phis = self._prefill.unknowns(), self._decode.unknowns()
        fits = self._prefill.fits + self._decode.fits
        if self._told is not None and fits < self._told_at + FITS_APART:
            return self._told
        self._told_at, fresh = fits, self._rounded(thetas, phis)
        if self._told is None or self._differs(self._told, fresh):
            self._told = fresh
        return self._told

    def _rounded(self, thetas: Row, phis: Row) -> Coefficients:
        layout, capacity = self._capacity.layout, self._capacity
        return Coefficients(
            schema=SCHEMA,
            prefill=Prefill(*(_round(value) for value in thetas)),
            decode=Decode(*(_round(value) for value in phis)),
            link=Link(0.0, 0.0),
            kv_bytes_per_token=layout.page_bytes // layout.page_tokens,
            kv_tokens=capacity.pages * capacity.page_tokens,
            max_sequences=capacity.max_sequences,
            load_s=0.0,
        )

    def _differs(self, told: Coefficients, fresh: Coefficients) -> bool:
        most = self._capacity.max_sequences
        pairs = [(told.prefill_seconds(n), fresh.prefill_seconds(n)) for n in (32, 512, 4096)]
        pairs += [(told.step_seconds(n, 512 * n), fresh.step_seconds(n, 512 * n)) for n in (1, max(1, most // 4))]
        return any(abs(new - old) > CHANGED * max(old, 1e-9) for old, new in pairs)


def _round(value: float) -> float:
    return 0.0 if value <= 0 else round(value, DIGITS - 1 - floor(log10(value)))
