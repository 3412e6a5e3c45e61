"""Settings of the scheduler, and the rule by which it refuses what it cannot serve. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from tandem_runtime.contracts.pod_protocol import Reason
from tandem_runtime.engine.request import Request


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """Defaults hold for CPUs; larger devices take larger steps."""

    step_tokens: int = 512
    """Budget of one step: bounds the time that a prefill chunk adds between two tokens of the decoding requests."""
    chunk_tokens: int = 256
    """Fixed chunk in deterministic mode, so that the numbers do not depend on the rest of the batch."""
    waiting_requests: int = 512
    """Beyond that a request is refused as overloaded: the queue belongs into the router."""
    waiting_tokens: int = 1 << 20
    free_page_share: float = 0.01
    """Kept free at admission, so that the running requests find a page for their next token."""
    remote_kv_seconds: float = 30.0
    """How long a request waits for another pod's KV before it computes its own."""
    sending_seconds: float = 60.0
    """How long computed pages wait for their receiver at most; one that is lost or gives up frees them at once."""
    deterministic: bool = False


def refusal(
    request: Request, vocabulary: int, context_tokens: int, queued: tuple[int, int], limits: SchedulerSettings
) -> tuple[Reason, str, bool] | None:
    """Why the request is not taken, in words, and whether another pod may take it. `queued`: requests, tokens."""
    tokens, (requests, queue_tokens) = request.tokens, queued
    if not tokens or request.prompt_tokens < 1:
        return Reason.INVALID, "the prompt has no tokens", False
    if min(tokens) < 0 or max(tokens) >= vocabulary:
        wrong = next(token for token in tokens if not 0 <= token < vocabulary)
        return Reason.INVALID, f"token id {wrong} is not in the vocabulary of {vocabulary} tokens", False
    if len(tokens) >= context_tokens:
        text = f"{len(tokens)} tokens leave no room in the context of {context_tokens}; shorten the prompt"
        return Reason.CONTEXT_LENGTH, text, False
    if requests >= limits.waiting_requests or queue_tokens + len(tokens) > limits.waiting_tokens:
        text = f"{requests} requests with {queue_tokens} tokens wait here already; try another pod"
        return Reason.OVERLOADED, text, True
    return None
