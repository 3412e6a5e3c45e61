"""What the front tells a trace collector of a request: its whole time here, and its wait in the queue."""

from __future__ import annotations

from tandem_runtime.contracts.trace import SAMPLED
from tandem_runtime.openai.record import RequestRecord
from tandem_runtime.telemetry.traces import SERVER, Span, Tracer, Value


def trace_request(tracer: Tracer, record: RequestRecord) -> None:
    """`record` has ended and has its details. The span of the request is the one whose id went to the pods."""
    context = record.trace
    if not tracer.on or context is None or not context.flags & SAMPLED:
        return
    queued = record.details.get("queued_seconds")
    if isinstance(queued, float):
        facts: dict[str, Value] = {"class": record.request_class, "choice": record.choice}
        tracer.child(context, "router.queue", record.started, record.started + queued, facts)
    if record.choice:
        return  # the first choice stands for the request
    attributes: dict[str, Value] = {
        "http.route": record.path,
        "http.response.status_code": record.status,
        "tandem.class": record.request_class,
        "tandem.attempts": record.attempts,
        "prompt_tokens": record.prompt_tokens,
        "output_tokens": record.all_output_tokens,
        "end": record.reason,
    }
    if record.first_token_seconds is not None:
        attributes["ttft_seconds"] = record.first_token_seconds
    end = record.started + record.seconds
    error = record.reason if record.status >= 500 else ""
    ids = (context.trace_id, context.span_id, record.parent_span)
    tracer.add(Span("router.request", *ids, record.started, end, SERVER, error, attributes))
