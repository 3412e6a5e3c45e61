"""What the router counts since it started: cumulative, so that readers may lose samples and sum over routers."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final

from tandem_runtime.openai.errors import CLIENT_GONE_STATUS
from tandem_runtime.openai.record import RequestRecord

TTFT_EDGES_SECONDS: Final = tuple(0.001 * 1.5**k for k in range(33))
"""1 ms to 10 minutes: the edges of every router are the same, so that histograms can be added."""
TPOT_EDGES_SECONDS: Final = tuple(0.0001 * 1.5**k for k in range(29))
"""0.1 ms to 10 s."""
SHED_STATUSES: Final = frozenset({429, 502, 503})
"""The fleet had no room or no pod for it."""


@dataclass
class Histogram:
    """`counts[i]` values are at most `edges[i]` and above the edge before; the last count is of all above."""

    edges: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.edges) + 1)

    def add(self, value: float) -> None:
        """Counts one value."""
        self.counts[bisect_left(self.edges, value)] += 1
        self.total += value


@dataclass
class Counters:
    """Requests that ended, by how. Those refused as malformed (other 4xx) count only as answers."""

    arrivals: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    completed: int = 0
    shed: int = 0
    failed: int = 0
    cancelled: int = 0
    retried: int = 0
    """Requests that needed more than one pod."""
    answers: dict[tuple[str, str], int] = field(default_factory=dict)
    """By (status, reason)."""
    ttft: Histogram = field(default_factory=lambda: Histogram(TTFT_EDGES_SECONDS))
    tpot: Histogram = field(default_factory=lambda: Histogram(TPOT_EDGES_SECONDS))

    def count(self, record: RequestRecord) -> None:
        """One request has ended."""
        answer = (str(record.status), record.reason)
        self.answers[answer] = self.answers.get(answer, 0) + 1
        if not record.submit_id:
            return  # refused before it could ask for a pod
        self.arrivals += 1
        self.prompt_tokens += record.prompt_tokens
        self.output_tokens += record.output_tokens
        self.retried += record.attempts > 1
        if record.status == 200:
            self.completed += 1
        elif record.status == CLIENT_GONE_STATUS:
            self.cancelled += 1
        elif record.status in SHED_STATUSES:
            self.shed += 1
        elif record.status >= 500:
            self.failed += 1
        if record.first_token_seconds is not None:
            self.ttft.add(record.first_token_seconds)
        if (tpot := record.tpot_seconds()) is not None:
            self.tpot.add(tpot)
