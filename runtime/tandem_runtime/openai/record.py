"""What became of one request: for the access log and the metrics. Never holds text of the client."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from math import inf

from tandem_runtime.contracts.goodput import Times
from tandem_runtime.contracts.pod_protocol import Usage
from tandem_runtime.contracts.trace import TraceContext


@dataclass(slots=True)
class RequestRecord:
    """Times are seconds since the request was fully read."""

    id: str
    """What the client sent as x-request-id, or generated."""
    path: str
    submit_id: str = ""
    """The id that pods see; unique even when two clients send the same x-request-id."""
    request_class: str = ""
    trace: TraceContext | None = None
    """Carried to every pod; its span is this request in the router."""
    parent_span: str = ""
    """Of the client, where it sent a trace context."""
    key: str = ""
    """Name of the API key, never the key."""
    tenant: str = ""
    """Of that key, as a hash."""
    verdict: str = ""
    """What goodput makes of it: met, missed or out; empty where nobody judges."""
    ttft_bound_seconds: float = inf
    tpot_bound_seconds: float = inf
    stream: bool = False
    status: int = 0
    reason: str = ""
    """finish_reason of a complete answer, else the error code."""
    message: str = ""
    prompt_tokens: int = 0
    output_tokens: int = 0
    attempts: int = 0
    first_token_seconds: float | None = None
    last_token_seconds: float | None = None
    seconds: float = 0.0
    pod_usage: Usage | None = None
    """As the last pod saw it: how many prompt tokens it computed itself, KV bytes it received."""
    started: float = field(default_factory=time.monotonic)
    """Monotonic time when the request was fully read."""
    choice: int = 0
    """Number of this choice of the request."""
    choices: list[RequestRecord] = field(default_factory=list)
    """With n > 1 those after the first, which is this record: each counts as a request of its own."""
    details: dict[str, object] = field(default_factory=dict)
    """What the backend adds: pods, reasons of retries."""

    def count(self, tokens: int) -> None:
        """New output tokens are about to be written."""
        if not tokens:
            return
        self.last_token_seconds = time.monotonic() - self.started
        if self.first_token_seconds is None:
            self.first_token_seconds = self.last_token_seconds
        self.output_tokens += tokens

    def end(self, status: int, reason: str, message: str = "") -> None:
        """The answer is over, one way or another."""
        self.status, self.reason, self.message = status, reason, message
        self.seconds = time.monotonic() - self.started

    @property
    def cached_tokens(self) -> int:
        """Of the prompt, what some pod held already, as far as it said so."""
        return self.pod_usage.cached_tokens if self.pod_usage is not None else 0

    @property
    def all_output_tokens(self) -> int:
        """Of all choices."""
        return self.output_tokens + sum(each.output_tokens for each in self.choices)

    def all_choices(self) -> list[RequestRecord]:
        """This one and the others; those without an end of their own, and all after an error, end as this one."""
        for each in self.choices:
            if not each.status or self.status != 200:
                each.end(self.status, self.reason, self.message)
        return [self, *self.choices]

    def times(self) -> Times:
        """As goodput judges them."""
        return Times(self.output_tokens, self.first_token_seconds, self.last_token_seconds)

    def log_fields(self) -> dict[str, object]:
        """The line of the access log, empty fields left out."""
        fields: dict[str, object] = {
            "request": self.id,
            "trace_id": self.trace.trace_id if self.trace is not None else "",
            "key": self.key,
            "tenant": self.tenant,
            "path": self.path,
            "status": self.status,
            "reason": self.reason,
            "message": self.message if self.status >= 429 else "",  # others quote what the client sent
            "class": self.request_class,
            "slo": self.verdict,
            "stream": self.stream,
            "prompt_tokens": self.prompt_tokens,
            "output_tokens": self.output_tokens,
            "attempts": self.attempts,
            "seconds": round(self.seconds, 4),
        }
        if self.first_token_seconds is not None:
            fields["ttft_seconds"] = round(self.first_token_seconds, 4)
        if (tpot := self.times().tpot_s) is not None:
            fields["tpot_seconds"] = round(tpot, 5)
        if self.verdict == "missed" and self.ttft_bound_seconds < inf:
            fields["ttft_bound_seconds"] = round(self.ttft_bound_seconds, 4)
            fields["tpot_bound_seconds"] = self.tpot_bound_seconds
        if self.pod_usage is not None:
            fields["prefilled_by_decode"] = self.pod_usage.prefilled_here
            fields["kv_bytes"] = self.pod_usage.kv_bytes_received
            fields["cached_tokens"] = self.pod_usage.cached_tokens or ""
        return {name: value for name, value in {**fields, **self.details}.items() if value != ""}
