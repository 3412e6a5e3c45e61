"""A request on its way through the fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tandem_operator.simulation.workload import Request

if TYPE_CHECKING:
    from tandem_operator.simulation.decode import DecodePod
    from tandem_operator.simulation.prefill import PrefillPod


class Flight:
    """Mutable, and touched by whoever has it: router, prefill pod, link, decode pod, in that order."""

    __slots__ = (
        "arrived_s",
        "attempt",
        "blocks",
        "cached",
        "computed",
        "context",
        "deadline_s",
        "decode",
        "emitted",
        "end_step",
        "entered_step",
        "first_s",
        "hinted_cached",
        "id",
        "output_tokens",
        "prefill",
        "prompt_tokens",
        "reserved",
        "row",
        "running",
        "slo_class",
        "timeout_s",
        "tpot_s",
    )

    def __init__(self, number: int, request: Request, ttft_s: float, tpot_s: float, timeout_s: float) -> None:
        self.row = number
        self.id = str(number)
        self.arrived_s = request.arrived_s
        self.prompt_tokens = request.prompt_tokens
        self.output_tokens = max(1, request.output_tokens)
        self.slo_class = request.slo_class
        self.blocks = request.blocks
        self.hinted_cached = request.cached_tokens
        self.deadline_s = request.arrived_s + ttft_s
        """Objective deadline of the first token."""
        self.tpot_s = tpot_s
        """Objective."""
        self.timeout_s = request.arrived_s + timeout_s
        self.attempt = 0
        self.cached = 0
        """Of `context`, what needed no computing."""
        self.context = request.prompt_tokens
        """Tokens whose KV must exist before the next one: the prompt, and what was emitted before a restart."""
        self.computed = 0
        """Of `context`."""
        self.emitted = 0
        self.first_s = -1.0
        """First token at the client; negative: none yet."""
        self.prefill: PrefillPod | None = None
        self.decode: DecodePod | None = None
        self.reserved = 0
        """Tokens of KV that the decode pod keeps free for it until it runs."""
        self.running = False
        """It is one of the sequences of a decode pod's steps."""
        self.entered_step = 0
        self.end_step = 0
        """Steps of the decode pod: when it came in, when it has its last token."""

    def restart(self) -> None:
        """Its pod went: all KV must be computed again, what the client has stays."""
        self.attempt += 1
        self.context = self.prompt_tokens + self.emitted
        self.computed = 0
        self.cached = 0
        self.reserved = 0
        self.running = False
        self.prefill = None
        self.decode = None
