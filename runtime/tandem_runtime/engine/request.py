"""One request inside the engine: its tokens, its pages, how far it is, and when its state must end."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from tandem_runtime.contracts.sampling import Sampling


class Phase(StrEnum):
    """Every phase has a deadline; none lasts for ever."""

    QUEUED = "queued"
    REMOTE_KV = "remote_kv"
    """Decode side: pages are reserved, a prefill pod fills them."""
    PREFILL = "prefill"
    DECODE = "decode"
    SENDING = "sending"
    """Prefill side: computed; the pages are kept until the receiver acknowledges them."""
    ENDED = "ended"


@dataclass(slots=True, eq=False)
class Request:
    """`tokens` is prompt, then what was emitted before a resume, then what was generated here.

    `handoff`: compute the KV and one token for another pod instead of decoding on. `deadline` in seconds of the
    engine's clock. `computed` tokens have their KV in `pages`.
    """

    handle: int
    tokens: list[int]
    prompt_tokens: int
    sampling: Sampling
    deadline: float
    prompt_digest: int
    handoff: bool = False
    remote: bool = False
    order: int = 0
    phase: Phase = Phase.QUEUED
    phase_deadline: float = float("inf")
    since: float = 0.0
    pages: list[int] = field(default_factory=list)
    computed: int = 0
    pages_told: int = 0
    prefilled_here: int = 0
    kv_bytes_received: int = 0
    given_tokens: int = 0
    """Length of `tokens` at arrival: what prefill has to cover; later tokens are generated here."""

    def __post_init__(self) -> None:
        self.given_tokens = len(self.tokens)

    @property
    def output_tokens(self) -> int:
        """Output tokens there are, those of before a resume included."""
        return len(self.tokens) - self.prompt_tokens


def page_count(tokens: int, page_tokens: int) -> int:
    """Pages that hold `tokens` tokens."""
    return -(-tokens // page_tokens)
