"""The router's account of itself: the document of /signals and the metrics, from the same counters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from tandem_runtime.contracts.goodput import TPOT_EDGES_SECONDS, TTFT_EDGES_SECONDS, ClassTotals, Histogram
from tandem_runtime.contracts.signals import (
    ClassSignals,
    HistogramSignals,
    PodView,
    QueueSignals,
    RouterSignals,
    Unconnected,
)
from tandem_runtime.telemetry.exposition import Metric, counter, gauge, histograms

if TYPE_CHECKING:
    from tandem_runtime.openai.http_port import PortCounts
    from tandem_runtime.router.access import Access
    from tandem_runtime.router.backend import RouterBackend
    from tandem_runtime.router.counters import Counters
    from tandem_runtime.router.settings import RouterSettings

ENDS = ("met", "missed", "shed", "failed", "cancelled", "refused")


def make_signals(
    settings: RouterSettings, backend: RouterBackend, counters: Counters, in_flight: int, now: float
) -> RouterSignals:
    """`now` is of the monotonic clock."""
    slack = backend.queue.slack(now)
    totals = counters.totals.values()
    kv_links = {link.hello.pod: link.state.kv_link for link in backend.links.values() if link.hello and link.state}
    return RouterSignals(
        router_id=settings.router_id,
        incarnation=settings.incarnation,
        monotonic_s=now,
        in_flight=in_flight,
        classes={name: class_signals(each) for name, each in counters.totals.items()},
        queue=QueueSignals(
            requests=len(backend.queue),
            tokens=backend.queue.tokens,
            slack_requests=slack.requests,
            slack_tokens=slack.tokens,
            drain_tokens_per_s=backend.queue.drain.tokens_per_second(now),
        ),
        ttft=histogram_signals(summed(TTFT_EDGES_SECONDS, (each.ttft for each in totals))),
        tpot=histogram_signals(summed(TPOT_EDGES_SECONDS, (each.tpot for each in totals))),
        pods=[
            PodView(
                pod=pod.pod,
                role=pod.role,
                revision=pod.revision,
                incarnation=pod.incarnation,
                ready=pod.ready,
                draining=pod.draining,
                fenced=pod.fenced,
                running=pod.running,
                waiting_tokens=pod.waiting_tokens,
                kv_used=pod.kv_used_tokens,
                kv_total=pod.kv_total_tokens,
                kv_link=kv_links.get(pod.pod, ""),
            )
            for pod in backend.snapshots()
        ],
        not_connected=[
            Unconnected(f"{address.host}:{address.port}", link.problem)
            for address, link in backend.links.items()
            if link.hello is None
        ],
        startups=list(backend.board.startups.values()),
        drains=[drain.signals(now) for drain in backend.drains.records.values()],
    )


def class_signals(totals: ClassTotals) -> ClassSignals:
    """The counters' present values."""
    return ClassSignals(
        arrivals=totals.arrivals,
        prompt_tokens=totals.prompt_tokens,
        prompt_tokens_squared=totals.prompt_tokens_squared,
        cached_tokens=totals.cached_tokens,
        completed=totals.completed,
        output_tokens=totals.output_tokens,
        output_tokens_squared=totals.output_tokens_squared,
        met=totals.met,
        missed=totals.missed,
        shed=totals.shed,
        failed=totals.failed,
        cancelled=totals.cancelled,
        refused=totals.refused,
        ttft=histogram_signals(totals.ttft),
        tpot=histogram_signals(totals.tpot),
    )


def make_metrics(backend: RouterBackend, counters: Counters, in_flight: int) -> Iterable[Metric]:
    """The same facts for Prometheus."""
    classes = counters.totals
    ends = [
        ({"class": name, "end": end}, float(getattr(totals, end))) for name, totals in classes.items() for end in ENDS
    ]
    answers = [
        ({"status": status, "reason": reason, "class": name}, float(count))
        for (status, reason, name), count in counters.answers.items()
    ]
    pods = backend.snapshots()
    serving = [pod.role for pod in pods if pod.serves()]
    fenced = [({"pod": pod.pod, "role": pod.role}, 1.0) for pod in pods if pod.fenced]
    waiting = dict.fromkeys(classes, 0)
    for entry in backend.queue.entries():
        waiting[entry.request_class] = waiting.get(entry.request_class, 0) + 1

    def by_class(name: str, words: str, value: Callable[[ClassTotals], float], kind: str = "counter") -> Metric:
        return Metric(name, words, kind, [({"class": each}, value(totals)) for each, totals in classes.items()])

    yield Metric("tandem_router_requests_total", "Requests answered, by status and reason", "counter", [*answers])
    yield Metric("tandem_router_goodput_requests_total", "Arrivals by class and how they ended", "counter", [*ends])
    yield by_class("tandem_router_arrivals_total", "Requests at the door", lambda totals: totals.arrivals)
    yield by_class("tandem_router_prompt_tokens_total", "Prompt tokens", lambda totals: totals.prompt_tokens)
    yield counter("tandem_router_output_tokens_total", "Output tokens", counters.output_tokens)
    yield by_class("tandem_router_attainment", "Met of all that count", lambda totals: totals.attainment, "gauge")
    yield labelled("tandem_router_retries_total", "Requests carried over to another pod", "reason", backend.retries)
    yield labelled(
        "tandem_router_dispatched_total", "Requests sent off, by who computes the prompt", "way", backend.ways
    )
    roles = {role: serving.count(role) for role in ("prefill", "decode", "both")}
    yield labelled("tandem_router_pods", "Connected pods that serve", "role", roles, "gauge")
    yield Metric("tandem_router_fenced", "Pods that get nothing new because somebody ends them", "gauge", [*fenced])
    yield labelled("tandem_router_drains_total", "Pods that began to drain", "cause", backend.drains.causes)
    yield labelled(
        "tandem_router_drained_requests_total", "What became of their requests", "outcome", backend.drains.totals
    )
    yield gauge("tandem_router_in_flight_requests", "Requests being answered", in_flight)
    yield labelled("tandem_router_queue_requests", "Requests that no pod has taken yet", "class", waiting, "gauge")
    yield gauge("tandem_router_queue_tokens", "Their prompt tokens", backend.queue.tokens)
    yield by_class_histogram("tandem_router_ttft_seconds", "From request read to first token", classes, "ttft")
    yield by_class_histogram("tandem_router_tpot_seconds", "Per output token after the first", classes, "tpot")


def port_metrics(counts: PortCounts) -> Iterable[Metric]:
    """Of the port that clients connect to."""
    refused = {"too_many": counts.refused, "large_head": counts.large_heads}
    yield gauge("tandem_router_connections", "Connections of clients that are open", counts.open)
    yield labelled("tandem_router_connections_refused_total", "Closed before a request was read", "reason", refused)


def access_metrics(access: Access) -> Iterable[Metric]:
    """Of a router that asks for API keys."""
    ring = access.keys.ring
    counts = {"valid": len(ring.keys), "invalid": len(ring.invalid)}
    yield labelled("tandem_router_api_keys", "Entries of the Secret", "state", counts, "gauge")
    yield labelled(
        "tandem_router_key_refusals_total", "Requests without a valid key or over its limits", "reason", access.refusals
    )


def by_class_histogram(name: str, words: str, classes: Mapping[str, ClassTotals], field: str) -> Metric:
    """One series for each class."""
    found: dict[str, Histogram] = {each: getattr(totals, field) for each, totals in classes.items()}
    edges = next(iter(found.values())).edges
    return histograms(name, words, edges, [({"class": each}, got.counts, got.total) for each, got in found.items()])


def labelled(name: str, words: str, label: str, values: Mapping[str, int], kind: str = "counter") -> Metric:
    """One value for each value of one label."""
    return Metric(name, words, kind, [({label: key}, float(value)) for key, value in values.items()])


def histogram_signals(values: Histogram) -> HistogramSignals:
    """The edges are fixed by the contract."""
    return HistogramSignals(list(values.counts), values.total)


def summed(edges: tuple[float, ...], parts: Iterable[Histogram]) -> Histogram:
    """All of them in one."""
    total = Histogram(edges)
    for part in parts:
        total.counts = [mine + other for mine, other in zip(total.counts, part.counts, strict=True)]
        total.total += part.total
    return total
