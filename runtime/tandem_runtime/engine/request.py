"""One request inside the engine: its tokens, its pages, how far it is, and when its state must end."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import Final

from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.engine.executor import GONE
from tandem_runtime.engine.prefixes import PrefixHashes
from tandem_runtime.engine.speculation import Drafter

PATIENCE_SECONDS: Final = 30.0
"""An objective further away than that, or none, counts as this far: so everyone's turn comes."""
PRIORITY_SECONDS: Final = 3.0
"""Head start of one level of priority."""
MOST_LEVELS: Final = 10


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
    engine's clock. `computed` tokens have their KV in `pages`. `objective`: when the first token should be there, on
    that clock; late is no error. `tpot_seconds`: what was promised for each further token.
    """

    handle: int
    tokens: list[int]
    prompt_tokens: int
    sampling: Sampling
    deadline: float
    prompt_digest: int
    handoff: bool = False
    remote: bool = False
    priority: int = 0
    objective: float = inf
    tpot_seconds: float = inf
    prefixes: PrefixHashes | None = None
    """None: its pages are neither looked for nor found by others."""
    rank: tuple[float, int] = (0.0, 0)
    """The smallest is served first and gives its pages up last. It never changes, so that nobody waits for ever."""
    phase: Phase = Phase.QUEUED
    phase_deadline: float = float("inf")
    since: float = 0.0
    pages: list[int] = field(default_factory=list)
    """Block table; GONE where the window has passed."""
    spare: list[int] = field(default_factory=list)
    """Pages set aside for the rest of its prompt, which gives back those behind the window while it is computed."""
    computed: int = 0
    published: int = 0
    """Pages of which the hash is known to others."""
    queued_seconds: float | None = None
    """From its arrival to when it was first admitted; None before."""
    cached_tokens: int | None = None
    """Of the given tokens, those whose KV was here when it was first admitted; None before."""
    pages_told: int = 0
    prefilled_here: int = 0
    kv_bytes_received: int = 0
    drafter: Drafter | None = None
    """Made when its first draft is thought of."""
    given_tokens: int = 0
    """Length of `tokens` at arrival: what prefill has to cover; later tokens are generated here."""

    def __post_init__(self) -> None:
        self.given_tokens = len(self.tokens)

    @property
    def held(self) -> list[int]:
        """Pages that it has a reference to."""
        return [page for page in self.pages if page != GONE] + self.spare

    @property
    def output_tokens(self) -> int:
        """Output tokens there are, those of before a resume included."""
        return len(self.tokens) - self.prompt_tokens

    @property
    def most_tokens(self) -> int:
        """Length of `tokens` at its end, if it does not stop before."""
        return max(len(self.tokens), self.prompt_tokens + self.sampling.max_tokens)

    def enter_line(self, now: float, order: int) -> None:
        """Its place among all: earliest objective first, with a head start for priority; then in order of arrival."""
        bound = min(max(self.objective - now, 0.0), PATIENCE_SECONDS)
        levels = max(-MOST_LEVELS, min(self.priority, MOST_LEVELS))
        self.since = now
        self.rank = (now + bound - PRIORITY_SECONDS * levels, order)


def page_count(tokens: int, page_tokens: int) -> int:
    """Pages that hold `tokens` tokens."""
    return -(-tokens // page_tokens)
