"""What an average request is: prompt, what of it is cached, answer; from what arrives, ends and runs."""

from __future__ import annotations

import math

import msgspec
from tandem_runtime.contracts.coefficients import Coefficients

from tandem_operator.scaling.bins import Sums, Windows
from tandem_operator.scaling.state import State

OUTPUT_PRIOR_TOKENS = 200.0
"""Before a request has completed: a chat answer."""
PROMPT_PRIOR_TOKENS = 1000.0
"""Before a request has arrived."""
PRIOR_REQUESTS = 5.0
"""The priors weigh as much as this many requests."""


class Mix(msgspec.Struct, frozen=True, kw_only=True):
    """An average request."""

    prompt_tokens: float
    new_tokens: float
    """Of the prompt, to be computed: not cached."""
    square: float
    """Mean square of prompt tokens."""
    output_tokens: float
    output_square: float
    turned: bool = False
    """Prompts of the last seconds are of another length than those of the last minute, beyond chance."""
    held_tokens: float = 0.0
    """KV of a running sequence as measured: long prompts with long answers run longest, which means do not show."""

    @property
    def context_tokens(self) -> float:
        """KV that a running sequence holds, on average over its life."""
        return max(self.prompt_tokens + self.output_tokens / 2, self.held_tokens)

    def prefill_seconds(self, coefficients: Coefficients) -> float:
        """Mean time of a prompt."""
        p = coefficients.prefill
        fresh = self.new_tokens / self.prompt_tokens if self.prompt_tokens > 0 else 1.0
        return p.theta0_s + p.theta1_s * self.new_tokens + p.theta2_s * fresh * self.square / 2

    def variability(self, coefficients: Coefficients) -> float:
        """Squared coefficient of variation of the time of a prompt."""
        mean_s = self.prefill_seconds(coefficients)
        if mean_s <= 0 or self.prompt_tokens <= 0:
            return 1.0
        spread = max(self.square - self.prompt_tokens**2, 0.0)
        slope = (mean_s - coefficients.prefill.theta0_s) / self.prompt_tokens
        return spread * slope * slope / (mean_s * mean_s)


def mix_of(state: State, windows: Windows) -> Mix:
    """Lengths of prompts that arrive and of answers that end, each of the longest window that still tells the truth.

    The answers that end in a few seconds are no fair sample: short ones end first. They count when prompts have just
    become others: then those of the last minute are no sample at all.
    """
    spans = (windows.fast, windows.medium, windows.slow)
    company = max(*state.noise[:2], 1.0)  # requests that arrive together are alike: so many count as one
    prompts = _truest([(s.requests, s.prompt_tokens, s.squares) for s in spans], 0.0, company)
    turned = prompts[0] == spans[0].requests < spans[1].requests
    ends = spans if turned else spans[1:]
    outputs = _truest([(s.completed, s.output_tokens, s.output_squares) for s in ends], OUTPUT_CHANGE)
    prompt, square = _with_prior(*prompts, PROMPT_PRIOR_TOKENS, 2 * PROMPT_PRIOR_TOKENS**2)
    known = max(state.output_tokens_mean or OUTPUT_PRIOR_TOKENS, 1.0)
    output, output_square = _with_prior(*outputs, known, max(state.output_square_mean, known**2))
    cached, tokens = windows.medium.cached_tokens, windows.medium.prompt_tokens
    hit = min(max(cached / tokens, 0.0), 1.0) if tokens > 0 else 0.0
    return Mix(
        prompt_tokens=prompt,
        new_tokens=prompt * (1 - hit),
        square=max(square, prompt**2),
        output_tokens=max(output, 1.0),
        output_square=max(output_square, output**2),
        turned=turned,
        held_tokens=state.held_tokens,
    )


def _truest(
    windows: list[tuple[float, float, float]], least_change: float, company: float = 1.0
) -> tuple[float, float, float]:
    """Of (count, sum, sum of squares) from the shortest window to the longest: the longest that no shorter denies.

    `company`: requests that come as one, on average; what they say counts once.
    """
    chosen = windows[-1]
    for window in reversed(windows[:-1]):
        count, total, _ = window
        if count < ENOUGH:
            break
        mean = chosen[1] / max(chosen[0], 1.0)
        variance = max(chosen[2] / max(chosen[0], 1.0) - mean * mean, 0.01 * mean * mean)
        change = abs(total / count - mean)
        if change > LENGTH_SIGMAS * math.sqrt(variance * company / count) and change > least_change * mean:
            chosen = window
    return chosen


def _with_prior(count: float, total: float, squares: float, mean: float, square: float) -> tuple[float, float]:
    """Mean and mean square; few samples count together with what was known before."""
    weight = PRIOR_REQUESTS if count < ENOUGH else 0.0
    return (total + weight * mean) / (count + weight), (squares + weight * square) / (count + weight)


ENOUGH = 20.0
"""Requests whose mean length says something."""
LENGTH_SIGMAS = 4.0
"""A change of lengths is believed from this far on: lengths have heavier tails than the normal distribution."""
OUTPUT_CHANGE = 0.25
"""... and, of answers, when it is at least this large: long ones come in company, and a pod takes long to start."""


def expected_flow(flow: tuple[tuple[float, float], ...], draining: bool) -> float:
    """Output tokens per second that pods will have to generate: as measured, less chance, and its rise once more.

    A rise beyond chance goes on for as long as it has been seen: a pile that has grown for 20 s has not stopped.
    `draining`: a backlog is being worked off, so what runs fills all pods whatever the load is, and rises with them.
    """
    if len(flow) < 3:
        return 0.0
    recent = (flow[-1][1] + flow[-2][1]) / 2
    rise = recent - flow[0][1]
    return recent * (1 - FLOW_CHANCE) + (rise if rise > FLOW_RISE * recent and not draining else 0.0)


FLOW_CHANCE = 0.1
"""Share by which what runs may exceed what load lets expect by chance."""
FLOW_RISE = 0.3
"""Share of what runs that a rise must have to be one."""


def learn_output(state: State, added: Sums) -> tuple[float, float]:
    """Mean and mean square of output tokens, of requests that completed; they fade with the number that complete."""
    count, tokens, squares = added.completed, added.output_tokens, added.output_squares
    if count <= 0:
        return state.output_tokens_mean, state.output_square_mean
    squares = max(squares, tokens * tokens / count)
    if state.output_tokens_mean <= 0:
        weight = count + PRIOR_REQUESTS
        mean = (tokens + PRIOR_REQUESTS * OUTPUT_PRIOR_TOKENS) / weight
        return mean, (squares + PRIOR_REQUESTS * 2 * OUTPUT_PRIOR_TOKENS**2) / weight
    gain = 1 - math.exp(-count / OUTPUT_MEMORY_REQUESTS)
    return (
        state.output_tokens_mean + gain * (tokens / count - state.output_tokens_mean),
        state.output_square_mean + gain * (squares / count - state.output_square_mean),
    )


OUTPUT_MEMORY_REQUESTS = 300.0
"""Completions after which the mean of output tokens has moved two thirds of the way; 5 % error at usual spreads."""
