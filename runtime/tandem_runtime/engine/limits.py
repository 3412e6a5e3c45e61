"""Settings of the scheduler, and the rule by which it refuses what it cannot serve. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from tandem_runtime.contracts.pod_protocol import Reason
from tandem_runtime.engine.batching import Batching
from tandem_runtime.engine.request import Request


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """Defaults hold for CPUs; larger devices take larger steps."""

    step_tokens: int = 512
    """Budget of one step: bounds the time that a prefill chunk adds between two tokens of the decoding requests."""
    least_chunk_tokens: int = 64
    """Of prompts, in every step that has any: objectives that cannot be met must not stop them."""
    tpot_seconds: float = inf
    """Promised to requests that carry no objective of their own; infinite: steps are as long as step_tokens makes
    them."""
    batching: Batching = Batching.CONTINUOUS
    batch_requests: int = 32
    """Static and dynamic batching: a whole batch."""
    batch_wait_seconds: float = 0.02
    """Static and dynamic batching: how long the oldest request waits for others."""
    prefix_cache: bool = True
    chunk_tokens: int = 256
    """Fixed chunk in deterministic mode, so that the numbers do not depend on the rest of the batch."""
    waiting_requests: int = 512
    """Beyond that a request is refused as overloaded: the queue belongs into the router."""
    waiting_tokens: int = 1 << 20
    free_page_share: float = 0.01
    """Kept free at admission while others run."""
    headroom_tokens: int = 64
    """Output tokens for which every request inside finds pages without another giving up its own: nobody is admitted
    into them, so requests whose KV came from elsewhere cannot hold all pages and wait for one more (vllm#57104)."""
    remote_kv_seconds: float = 30.0
    """How long a request waits for another pod's KV before it computes its own."""
    sending_seconds: float = 60.0
    """How long computed pages wait for their receiver at most; one that is lost or gives up frees them at once."""
    deterministic: bool = False
    draft_tokens: int = 0
    """Longest draft of tokens from a sequence's own history that is checked in one forward; 0: no speculation."""
    speculative_rows: int = 16
    """Rows of a step, drafts included, up to which one more costs next to nothing on a CPU: weights are read once."""
    warm_up: bool = False
    """Run a few steps before the first request; for executors that take their own time."""


@dataclass(frozen=True, slots=True)
class Queued:
    """What waits here: requests, prompt tokens, and the seconds that these take at least; 0 when nobody knows."""

    requests: int
    tokens: int
    seconds: float = 0.0


def refusal(
    request: Request, vocabulary: int, context_tokens: int, queued: Queued, limits: SchedulerSettings, now: float
) -> tuple[Reason, str, bool] | None:
    """Why the request is not taken, in words, and whether another pod may take it."""
    tokens = request.tokens
    if not tokens or request.prompt_tokens < 1:
        return Reason.INVALID, "the prompt has no tokens", False
    if min(tokens) < 0 or max(tokens) >= vocabulary:
        wrong = next(token for token in tokens if not 0 <= token < vocabulary)
        return Reason.INVALID, f"token id {wrong} is not in the vocabulary of {vocabulary} tokens", False
    if len(tokens) >= context_tokens:
        text = f"{len(tokens)} tokens leave no room in the context of {context_tokens}; shorten the prompt"
        return Reason.CONTEXT_LENGTH, text, False
    if queued.requests >= limits.waiting_requests or queued.tokens + len(tokens) > limits.waiting_tokens:
        text = f"{queued.requests} requests with {queued.tokens} tokens wait here already; try another pod"
        return Reason.OVERLOADED, text, True
    left = request.deadline - now
    if queued.requests and queued.seconds > left:
        text = f"{queued.tokens} tokens wait here, {queued.seconds:.1f} s of work; the request has {left:.1f} s left"
        return Reason.OVERLOADED, f"{text}: try another pod, or later", True
    return None
