"""What one replica can do at a latency, from coefficients or from a regression of its steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tandem_runtime.contracts.coefficients import Coefficients

from tandem_operator.scaling.observation import Iteration


class StepLine(NamedTuple):
    """Decode step seconds = constant + each n + kv K."""

    constant: float
    each: float
    kv: float

    def __call__(self, sequences: float, kv_tokens: float) -> float:
        """Seconds of a step."""
        return max(self.constant + self.each * sequences + self.kv * kv_tokens, 1e-6)


class PromptLine(NamedTuple):
    """Prefill step seconds = constant + each tokens."""

    constant: float
    each: float

    def __call__(self, tokens: float, step_tokens: float = 8192.0) -> float:
        """Seconds of a prompt, in steps of at most `step_tokens`."""
        if tokens <= 0:
            return 0.0
        whole, rest = divmod(tokens, step_tokens)
        seconds = whole * (self.constant + self.each * step_tokens)
        return max(seconds + (self.constant + self.each * rest if rest > 0 else 0.0), 1e-6)


def step_line(coefficients: Coefficients) -> StepLine:
    """The profile."""
    decode = coefficients.decode
    return StepLine(decode.phi0_s, decode.phi1_s, decode.phi2_s)


def prompt_line(coefficients: Coefficients, tokens: float = 1024.0) -> PromptLine:
    """The profile, linear around prompts of this length."""
    prefill = coefficients.prefill
    return PromptLine(prefill.theta0_s, prefill.theta1_s + prefill.theta2_s * tokens / 2)


def batch_at(step: StepLine, tpot_s: float, context: float, kv_tokens: float, max_sequences: int) -> int:
    """Most sequences of this context whose step stays within the time, whose KV fits; at least 1."""
    low, high = 1, int(max(min(kv_tokens / max(context, 1.0), max_sequences), 1))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if step(middle, middle * context) <= tpot_s else (low, middle - 1)
    return low


def decode_rate(
    step: StepLine, coefficients: Coefficients, tpot_s: float, prompt: float, output: float
) -> tuple[int, float]:
    """Batch and requests per second of one decode replica at the TPOT; context in mid-life is prompt + output / 2."""
    context = prompt + output / 2
    batch = batch_at(step, tpot_s, context, coefficients.kv_tokens, coefficients.max_sequences)
    return batch, batch / (output * step(batch, batch * context))


def fit_steps(iterations: list[Iteration], needs: int = 5) -> StepLine | None:
    """Least squares of decode steps with no negative coefficient. None: too few."""
    rows = [(1.0, float(step.sequences), float(step.kv_tokens)) for step in iterations if step.sequences > 0]
    times = [step.seconds for step in iterations if step.sequences > 0]
    return StepLine(*_non_negative(rows, times)) if len(rows) >= needs else None


def fit_prompts(iterations: list[Iteration], needs: int = 5) -> PromptLine | None:
    """Least squares of prefill steps with no negative coefficient. None: too few."""
    rows = [(1.0, float(step.prefill_tokens)) for step in iterations if step.prefill_tokens > 0]
    times = [step.seconds for step in iterations if step.prefill_tokens > 0]
    return PromptLine(*_non_negative(rows, times)) if len(rows) >= needs else None


def _non_negative(rows: Sequence[tuple[float, ...]], values: list[float]) -> list[float]:
    """Least squares; the most negative coefficient is set to zero and the rest fitted again."""
    width = len(rows[0])
    live = list(range(width))
    while live:
        found = _solve(rows, values, live)
        worst = min(range(len(live)), key=found.__getitem__)
        if found[worst] >= 0:
            answer = [0.0] * width
            for column, value in zip(live, found, strict=True):
                answer[column] = value
            return answer
        live.pop(worst)
    return [0.0] * width


def _solve(rows: Sequence[tuple[float, ...]], values: list[float], live: list[int]) -> list[float]:
    """Normal equations of the live columns, scaled, with a ridge that makes columns that do not vary harmless."""
    scale = [max(max(abs(row[column]) for row in rows), 1e-12) for column in live]
    size = len(live)
    matrix = [[0.0] * (size + 1) for _ in range(size)]
    for row, value in zip(rows, values, strict=True):
        scaled = [row[column] / unit for column, unit in zip(live, scale, strict=True)]
        for i in range(size):
            for j in range(size):
                matrix[i][j] += scaled[i] * scaled[j]
            matrix[i][size] += scaled[i] * value
    for i in range(size):
        matrix[i][i] += 1e-9 * len(rows)
    for i in range(size):
        for j in range(i + 1, size):
            share = matrix[j][i] / matrix[i][i]
            for k in range(i, size + 1):
                matrix[j][k] -= share * matrix[i][k]
    found = [0.0] * size
    for i in reversed(range(size)):
        found[i] = (matrix[i][size] - sum(matrix[i][j] * found[j] for j in range(i + 1, size))) / matrix[i][i]
    return [value / unit for value, unit in zip(found, scale, strict=True)]
