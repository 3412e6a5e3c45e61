"""What the scheduler counts; cumulative since the start of the process."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """added == finished + aborted + failed + those that are inside."""

    added: int = 0
    finished: int = 0
    aborted: int = 0
    failed: int = 0
    preempted: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    drafts: int = 0
    draft_tokens: int = 0
    accepted_tokens: int = 0
    """Of them, those that became output."""
    stale_pages: int = 0
    remote_fallbacks: int = 0
    passed_pages: int = 0
    """Given back by requests that went on: they fell out of the model's window."""
    prefix_asked_tokens: int = 0
    """Of requests when they were first admitted."""
    prefix_hit_tokens: int = 0
