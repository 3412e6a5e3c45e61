"""One line for each request that a pod served, under the id and the trace that the router's access log names."""

from __future__ import annotations

import logging

from tandem_runtime.contracts.kv_protocol import Prefill
from tandem_runtime.contracts.pod_protocol import Submit
from tandem_runtime.contracts.trace import trace_id_of
from tandem_runtime.server.course import Course

log = logging.getLogger("tandem.requests")


def log_request(submit: Submit, course: Course, reason: str, now: float) -> None:
    """Of a pod that decodes: how it ended here. Never text, nor ids of tokens."""
    if log.isEnabledFor(logging.INFO):
        fields = {
            "request": submit.id,
            "attempt": submit.attempt,
            "trace_id": trace_id_of(submit.traceparent),
            "class": submit.request_class,
            "reason": reason,
            "prompt_tokens": len(submit.prompt_ids),
            "resumed_tokens": len(submit.emitted_ids),
            "output_tokens": course.output_tokens,
            "prefill_pod": submit.prefill_peer.pod if submit.prefill_peer is not None else "",
            "ttft_seconds": None if course.first is None else round(course.first - course.came, 4),
            "seconds": round(now - course.came, 4),
        }
        _write("decoded", fields)


def log_prefill(request: Prefill, queued_seconds: float, came: float, now: float) -> None:
    """Of a pod that computed a prompt for another one."""
    if log.isEnabledFor(logging.INFO):
        fields = {
            "request": request.req.partition(":")[2],  # the decode pod's handle goes before it
            "attempt": request.attempt,
            "trace_id": trace_id_of(request.traceparent),
            "prompt_tokens": len(request.tokens),
            "queued_seconds": round(queued_seconds, 4),
            "seconds": round(now - came, 4),
        }
        _write("prefilled", fields)


def _write(words: str, fields: dict[str, object]) -> None:
    log.info(words, extra={"fields": {name: value for name, value in fields.items() if value not in ("", None)}})
