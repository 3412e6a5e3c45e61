"""The course of one request through a pod: when what happened, for vLLM's histograms and for spans. No text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tandem_runtime.contracts.trace import TraceContext, read_trace
from tandem_runtime.telemetry.exposition import Metric
from tandem_runtime.telemetry.tally import Tally
from tandem_runtime.telemetry.traces import OFF, Tracer, Value

TTFT_EDGES: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
TOKEN_EDGES: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0),
)
REQUEST_EDGES: Final = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0),
    *(960.0, 1920.0, 7680.0),
)
LENGTH_EDGES: Final = tuple(digit * 10**power for power in range(6) for digit in (1, 2, 5))
"""All four as vLLM has them, so that its dashboards read right; between tokens three finer ones."""


@dataclass(slots=True)
class Course:
    """Seconds of the event loop's clock; None: not yet. `remote`: another pod computes the prompt."""

    context: TraceContext | None
    prompt_tokens: int
    came: float
    remote: bool = False
    admitted: float | None = None
    """Out of the pod's queue: it holds pages."""
    first: float | None = None
    last: float = 0.0
    output_tokens: int = 0


class RequestMetrics:
    """Of one pod. Each course ends once."""

    def __init__(self, model_name: str, pod: str, tracer: Tracer = OFF) -> None:
        self.labels = {"model_name": model_name}
        self.tracer = tracer
        self._pod = pod
        self._ends: dict[str, int] = {}
        self._ttft, self._between, self._per_token = Tally(TTFT_EDGES), Tally(TOKEN_EDGES), Tally(TOKEN_EDGES)
        self._whole, self._queue, self._prefill, self._decode, self._inference = (
            Tally(REQUEST_EDGES) for _ in range(5)
        )
        self._prompt, self._output = Tally(LENGTH_EDGES), Tally(LENGTH_EDGES)

    def begin(self, traceparent: str, prompt_tokens: int, now: float, remote: bool = False) -> Course:
        """A request is here."""
        return Course(read_trace(traceparent) if traceparent else None, prompt_tokens, now, remote)

    def emitted(self, course: Course, tokens: int, queued_seconds: float, now: float) -> None:
        """Of one step; at least one."""
        if course.first is None:
            course.admitted = course.came + queued_seconds
            course.first = now
            self._ttft.add(now - course.came)
            if tokens > 1:  # they came with the first one
                self._between.add(0.0, tokens - 1)
        else:
            self._between.add((now - course.last) / tokens, tokens)
        course.last = now
        course.output_tokens += tokens

    def prefilled(self, course: Course, queued_seconds: float, now: float) -> None:
        """On a prefill pod: everything is computed, and the pages are on their way."""
        self._queue.add(queued_seconds)
        self._prefill.add(now - course.came - queued_seconds)
        self._prompt.add(course.prompt_tokens)
        self._span(course, "prefill", course.came + queued_seconds, now, {"queued_seconds": queued_seconds})

    def end(self, course: Course, reason: str, now: float) -> None:
        """stop, length, cancelled, or why it failed; vLLM's histograms hold what ended with a result."""
        admitted, first = course.admitted, course.first
        if admitted is not None and first is not None:
            name = "transfer" if course.remote else "prefill"
            self._span(course, name, admitted, first, {"queued_seconds": admitted - course.came})
        if first is not None:
            self._span(course, "decode", first, now, {"output_tokens": course.output_tokens, "end": reason})
        if reason not in ("stop", "length"):
            return
        self._ends[reason] = self._ends.get(reason, 0) + 1
        first, admitted = now if first is None else first, course.came if admitted is None else admitted
        self._whole.add(now - course.came)
        self._queue.add(admitted - course.came)
        self._prefill.add(first - admitted)
        self._decode.add(course.last - first if course.last else 0.0)
        self._inference.add(now - admitted)
        if course.output_tokens > 1:
            self._per_token.add((course.last - first) / (course.output_tokens - 1))
        self._prompt.add(course.prompt_tokens)
        self._output.add(course.output_tokens)

    def _span(self, course: Course, name: str, start: float, end: float, attributes: Mapping[str, Value]) -> None:
        facts = {"tandem.pod": self._pod, "prompt_tokens": course.prompt_tokens, **attributes}
        self.tracer.child(course.context, name, start, end, facts)

    def metrics(self) -> list[Metric]:
        """All of them."""
        ends: list[tuple[Mapping[str, str], float]] = [
            ({**self.labels, "finished_reason": reason}, self._ends.get(reason, 0)) for reason in ("stop", "length")
        ]
        shown = {
            "time_to_first_token_seconds": (self._ttft, "From a request's arrival here to its first token"),
            "inter_token_latency_seconds": (self._between, "Between two tokens of a request"),
            "request_time_per_output_token_seconds": (self._per_token, "Mean of a request after its first token"),
            "e2e_request_latency_seconds": (self._whole, "From a request's arrival here to its end"),
            "request_queue_time_seconds": (self._queue, "Until it held pages"),
            "request_prefill_time_seconds": (self._prefill, "From then to its first token; of a hand-off, to its end"),
            "request_decode_time_seconds": (self._decode, "From its first to its last token"),
            "request_inference_time_seconds": (self._inference, "From when it held pages to its end"),
            "request_prompt_tokens": (self._prompt, "Prompt tokens of a request"),
            "request_generation_tokens": (self._output, "Output tokens of a request that came from here"),
        }
        return [
            Metric("vllm:request_success_total", "Requests that ended with a result, by reason", "counter", ends),
            *(tally.metric(f"vllm:{name}", words, self.labels) for name, (tally, words) in shown.items()),
            Metric("tandem_engine_spans_lost_total", "Spans not exported", "counter", [({}, self.tracer.lost)]),
        ]
