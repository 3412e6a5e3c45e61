"""One request on its way through the router: what the client has seen, and where it runs now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Final

import msgspec

from tandem_runtime.contracts.goodput import SloClass
from tandem_runtime.contracts.pod_protocol import Failed, PrefillPeer, Submit
from tandem_runtime.openai.backend import LaneSource, Sink
from tandem_runtime.policy.waiting import Waiting
from tandem_runtime.router.drains import Outcome

if TYPE_CHECKING:
    from tandem_runtime.router.link import PodLink

MOST_RETRIES_TOLD: Final = 8
"""In the access log: a request that full pods turn away for minutes has hundreds."""


@dataclass(eq=False, slots=True)
class Flight:
    """`arrived` and `timeout_at` are monotonic seconds; `submit` is as the front gave it."""

    submit: Submit
    arrived: float
    timeout_at: float
    slo: SloClass = field(default_factory=SloClass)
    service_seconds: float = 0.0
    """From an idle fleet to the first token, as predicted when it came."""
    output_tokens: int = 0
    """Expected answer."""
    blocks: Sequence[bytes] = ()
    """Prefix hashes of the prompt, where pods keep prefixes."""
    cached_tokens: int = 0
    """Of the prompt, what the best pod was expected to hold when it came."""
    sink: Sink = lambda event: None
    """Where its events go."""
    lane: LaneSource | None = None
    """A way past the sink, where the front has one."""
    lane_number: int = 0
    """In the lanes of its link; then `emitted_ids` is behind, until it leaves them. 0: not there."""
    attempt: int = 0
    """Goes up with each pod it is sent to after the first."""
    outcome: Outcome = "cancelled"
    """As long as nothing else ended it."""
    failures: int = 0
    """Attempts that failed while pods worked on it; being turned away does not count."""
    emitted_ids: list[int] = field(default_factory=list)
    """Output tokens that were handed to the front, in order, over all attempts."""
    link: PodLink | None = None
    prefill_link: PodLink | None = None
    """Until the first token of this attempt."""
    failed_at: frozenset[str] = frozenset()
    """Incarnations of pods that failed it."""
    pods: list[str] = field(default_factory=list)
    retries: list[str] = field(default_factory=list)
    queued_seconds: float = 0.0
    way: str = ""
    """Who computes the prompt, as the last choice said."""
    predicted_seconds: float = 0.0
    """From the first dispatch to the first token; 0 when nobody knew."""

    def tokens(self) -> int:
        """What a pod has to hold to go on: prompt and answer so far."""
        return len(self.submit.prompt_ids) + len(self.emitted_ids)

    def waiting(self, avoid_until: float = 0.0) -> Waiting:
        """Its place in the queue."""
        return Waiting(
            self.submit.id,
            self.arrived,
            self.timeout_at,
            self.tokens(),
            objective_at=self.arrived + self.slo.ttft_bound_s(len(self.submit.prompt_ids)),
            priority=self.slo.priority,
            service_seconds=self.service_seconds,
            tenant=self.submit.tenant_salt.hex(),
            request_class=self.slo.name,
            cached_tokens=self.cached_tokens,
            output_tokens=max(0, self.output_tokens - len(self.emitted_ids)),
            tpot_seconds=self.slo.tpot_s,
            resumed=self.attempt > 0,
            streaming=bool(self.emitted_ids),
            avoid=self.failed_at,
            avoid_until=avoid_until,
        )

    def message(self, now: float, peer: PrefillPeer | None) -> Submit:
        """What the pod gets for this attempt."""
        return msgspec.structs.replace(
            self.submit,
            attempt=self.attempt,
            emitted_ids=list(self.emitted_ids),
            remaining_ms=max(1, int(1000 * (self.timeout_at - now))),
            priority=self.slo.priority,
            objective_ms=self._objective_ms(now),
            tpot_ms=1000 * self.slo.tpot_s if self.slo.tpot_s < inf else None,
            prefill_peer=peer,
        )

    def _objective_ms(self, now: float) -> int | None:
        """A stream that broke off goes on at once, whatever its first token was promised."""
        if self.emitted_ids:
            return 0
        bound_seconds = self.slo.ttft_bound_s(len(self.submit.prompt_ids))
        return max(0, int(1000 * (self.arrived + bound_seconds - now))) if bound_seconds < inf else None

    def fail(self, reason: str, message: str, retry_after_seconds: int | None = None) -> None:
        """Ends it without a result."""
        self.outcome = "lost"
        self.sink(Failed(self.submit.id, self.attempt, reason, message, False, retry_after_seconds=retry_after_seconds))

    def details(self) -> dict[str, object]:
        """For the access log."""
        left_out = len(self.retries) - MOST_RETRIES_TOLD
        retries = [f"{left_out} before", *self.retries[-MOST_RETRIES_TOLD:]] if left_out > 0 else self.retries
        facts: dict[str, object] = {"pods": ">".join(self.pods[-MOST_RETRIES_TOLD:]), "retries": "; ".join(retries)}
        if self.way:
            facts["prompt_by"] = self.way
        if self.predicted_seconds:
            facts["ttft_predicted_seconds"] = round(self.queued_seconds + self.predicted_seconds, 4)
        return {**facts, "queued_seconds": round(self.queued_seconds, 4)}
