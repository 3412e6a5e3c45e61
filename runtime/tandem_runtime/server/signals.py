"""What a pod tells on its metrics port: probes, Prometheus metrics, and signals for the autoscaler."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import msgspec

from tandem_runtime.server.drain import DrainReport
from tandem_runtime.server.flip import Flipping
from tandem_runtime.server.internal_port import InternalPort
from tandem_runtime.server.link_metrics import link_metrics, links_of
from tandem_runtime.server.pod import Pod
from tandem_runtime.telemetry.exposition import CONTENT_TYPE, Metric, counter, gauge, render
from tandem_runtime.telemetry.http import Answer, Route, as_json, text

SIGNALS_SCHEMA = 1
STUCK_SECONDS = 120.0
"""No step takes that long; an engine with work and without a step since then is stuck."""


class Probes:
    """Answers of the metrics port. `pod` and `port` come when the model is loaded."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.pod: Pod | None = None
        self.port: InternalPort | None = None
        self.flipping: Flipping | None = None
        self.loaded_seconds = 0.0
        self._clock = clock
        self._started = clock()

    def routes(self) -> dict[str, Route]:
        """Path to answer."""
        return {
            "/healthz": self.healthz,
            "/readyz": self.readyz,
            "/metrics": lambda: Answer(200, render(self.metrics()), CONTENT_TYPE),
            "/signals": lambda: as_json(self.signals()),
        }

    def healthz(self) -> Answer:
        """503 when only a restart can help."""
        if self.pod is not None:
            engine = self.pod.engine.engine
            if engine.ended.done():
                return text(503, "the engine gave up; see the log")
            if engine.state.running and self._clock() - engine.turned_at > STUCK_SECONDS:
                return text(503, f"the engine made no step for {STUCK_SECONDS:.0f} s")
        return text(200, "ok")

    def readyz(self) -> Answer:
        """200 only when a request can be served now."""
        if self.pod is None:
            return text(503, "the model is loading")
        if self.pod.becoming:
            return text(503, f"becoming a {self.pod.becoming} pod; {self.pod.in_flight} requests are left")
        if self.pod.draining:
            return text(503, "draining")
        if self.pod.ready:
            links = f"; kv: {self.pod.preflight.words()}" if self.pod.identity.role == "decode" else ""
            return text(200, f"ready{links}")
        if not self.pod.preflight.settled:
            return text(503, self.pod.preflight.words())
        return text(503, "the engine gave up; see the log")

    def signals(self) -> dict[str, Any]:
        """Versioned; cumulative figures since the start of this incarnation."""
        signals: dict[str, Any] = {"schema": SIGNALS_SCHEMA, "monotonic_s": self._clock() - self._started}
        if self.pod is None:
            return signals | {"ready": False}
        pod, engine = self.pod, self.pod.engine.engine
        state, identity, since, counters = pod.state(), pod.identity, pod.since, engine.scheduler.counters
        return signals | {
            "pod": identity.pod,
            "role": identity.role,
            "revision": identity.revision,
            "incarnation": identity.incarnation,
            "ready": pod.ready,
            "draining": pod.draining,
            "drain": asdict(pod.drained) if pod.drained else None,
            "becoming": pod.becoming,
            "flips": self.flipping.count if self.flipping else 0,
            "flip": self.flipping.last.as_dict(pod.clock()) if self.flipping and self.flipping.last else None,
            "running": state.running,
            "waiting": state.waiting,
            "waiting_tokens": state.waiting_tokens,
            "kv_used": state.kv_used_tokens,
            "kv_total": state.kv_total_tokens,
            "dtype": pod.engine.capacity.dtype,
            "quantization": pod.engine.capacity.quantization,
            "kv_dtype": pod.engine.capacity.layout.dtype,
            "max_sequences": pod.engine.capacity.max_sequences,
            "preemptions": counters.preempted - since.counters.preempted,
            "draft_tokens": counters.draft_tokens - since.counters.draft_tokens,
            "accepted_tokens": counters.accepted_tokens - since.counters.accepted_tokens,
            "prefix_asked_tokens": counters.prefix_asked_tokens - since.counters.prefix_asked_tokens,
            "prefix_hit_tokens": counters.prefix_hit_tokens - since.counters.prefix_hit_tokens,
            "kv_cached": engine.state.cached_pages * pod.engine.capacity.page_tokens,
            "coefficients": None if pod.coefficients is None else msgspec.to_builtins(pod.coefficients),
            "loaded_s": self.loaded_seconds,
            "kv_tx_bytes": pod.sent.tx_bytes - since.tx_bytes,
            "kv_rx_bytes": pod.received.rx_bytes - since.rx_bytes,
            "kv_link": [link.as_dict(pod.clock()) for link in links_of(pod)],
            "iterations": [asdict(iteration) for iteration in since.recent(engine)],
            "iterations_total": engine.iterations_total - since.steps,
        }

    def metrics(self) -> list[Metric]:
        """vLLM's names where the meaning is the same."""
        if self.pod is None:
            return [gauge("tandem_engine_ready", "1 when requests can be served", 0)]
        pod = self.pod
        own = [*self._port_metrics(), *self._role_metrics(pod)]
        return [*_engine_metrics(pod), *pod.requests.metrics(), *_transfer_metrics(pod), *own]

    def _role_metrics(self, pod: Pod) -> list[Metric]:
        count, last = (self.flipping.count, self.flipping.last) if self.flipping else (0, None)
        seconds = last.seconds if last is not None and last.seconds is not None else 0.0
        return [
            gauge("tandem_engine_role_info", "1; what the pod does now", 1, {"role": pod.identity.role}),
            counter("tandem_engine_flips_total", "Roles taken in place of the other one", count),
            gauge("tandem_engine_flip_seconds", "Of the last one, from the order to ready", seconds),
        ]

    def _port_metrics(self) -> list[Metric]:
        routers, bad_frames = (len(self.port.connections), self.port.bad_frames) if self.port else (0, 0)
        return [
            gauge("tandem_engine_routers", "Routers that are connected", routers),
            counter("tandem_engine_bad_frames_total", "Router connections that broke the protocol", bad_frames),
            gauge("tandem_engine_load_seconds", "Start of the process to loaded model", self.loaded_seconds),
        ]


def _engine_metrics(pod: Pod) -> list[Metric]:
    engine = pod.engine.engine
    state, counters = engine.state, engine.scheduler.counters
    phases: list[tuple[Any, float]] = [({"phase": name}, count) for name, count in (state.phases or {}).items()]
    failures: list[tuple[Any, float]] = [({"reason": name}, count) for name, count in pod.failures.items()]
    drained = pod.drained or DrainReport(0)
    capacity = pod.engine.capacity
    held = {"dtype": capacity.dtype, "quantization": capacity.quantization, "kv_dtype": capacity.layout.dtype}
    labels, used = pod.requests.labels, state.used_pages / max(1, state.total_pages)
    ends: list[tuple[Any, float]] = [({"end": end}, getattr(drained, end)) for end in ("completed", "migrated", "lost")]
    return [
        gauge("tandem_engine_ready", "1 when requests can be served", int(pod.ready)),
        gauge("tandem_engine_precision_info", "1; how weights and KV are held", 1, held),
        gauge("vllm:num_requests_running", "Requests that hold pages", state.running, labels),
        gauge("vllm:num_requests_waiting", "Requests that wait for pages", state.waiting, labels),
        gauge("vllm:kv_cache_usage_perc", "Share of the pages in use", used, labels),
        counter("vllm:prompt_tokens_total", "Prompt tokens computed here", counters.prompt_tokens, labels),
        counter("vllm:generation_tokens_total", "Output tokens", counters.output_tokens, labels),
        counter("vllm:num_preemptions_total", "Requests that gave their pages back", counters.preempted, labels),
        counter("vllm:spec_decode_num_drafts_total", "Drafts checked", counters.drafts, labels),
        counter("vllm:spec_decode_num_draft_tokens_total", "Tokens proposed", counters.draft_tokens, labels),
        counter("vllm:spec_decode_num_accepted_tokens_total", "Of them, output", counters.accepted_tokens, labels),
        counter("tandem_engine_finished_total", "Requests that ended well, hand-offs too", counters.finished),
        counter("tandem_engine_requests_total", "Requests taken in", counters.added),
        counter("tandem_engine_cancelled_total", "Requests that nobody waited for any more", pod.cancelled),
        Metric("tandem_engine_failed_total", "Requests that ended without a result", "counter", failures),
        Metric("tandem_engine_requests_by_phase", "Requests inside", "gauge", phases),
        Metric("tandem_engine_drained_requests_total", "Requests of before SIGTERM, by their end", "counter", ends),
        gauge("tandem_engine_oldest_request_seconds", "Age of the oldest request inside", state.oldest_seconds),
        gauge("tandem_engine_pages", "Pages there are", state.total_pages),
        gauge("tandem_engine_used_pages", "Pages held", state.used_pages),
        gauge("tandem_engine_cached_pages", "Pages that nobody holds and that keep a prefix", state.cached_pages),
        gauge("tandem_engine_leaked_pages", "Pages whose books are wrong, counted when idle", state.leaked_pages),
        counter("tandem_engine_passed_pages_total", "Pages that fell out of a window", counters.passed_pages),
        counter("tandem_engine_evicted_pages_total", "Pages that lost their prefix", engine.scheduler.blocks.evictions),
        counter("vllm:prefix_cache_queries_total", "Tokens looked up", counters.prefix_asked_tokens, labels),
        counter("vllm:prefix_cache_hits_total", "Tokens found", counters.prefix_hit_tokens, labels),
    ]


def _transfer_metrics(pod: Pod) -> list[Metric]:
    sent, received = pod.sent, pod.received
    reasons: list[tuple[Any, float]] = [({"reason": name}, n) for name, n in pod.receiver.fallbacks.items()]
    retries: list[tuple[Any, float]] = [({"reason": name}, n) for name, n in pod.receiver.retries.items()]
    return [
        counter("tandem_kv_tx_bytes_total", "Payload of pages sent", sent.tx_bytes),
        counter("tandem_kv_rx_bytes_total", "Payload of pages received", received.rx_bytes),
        counter("tandem_kv_tx_frames_total", "Frames sent", sent.tx_frames),
        counter("tandem_kv_rx_frames_total", "Frames received", received.rx_frames),
        counter("tandem_kv_frames_stale_total", "Frames of another attempt or generation", received.frames_stale),
        counter("tandem_kv_crc_errors_total", "Frames that arrived damaged", received.crc_errors),
        counter("tandem_kv_nacks_total", "Messages that ask for pages once more", sent.nacks + received.nacks),
        counter("tandem_kv_resent_pages_total", "Pages sent once more", sent.resent_pages),
        counter("tandem_kv_expired_total", "Hand-offs that took too long", sent.expired + received.expired),
        counter("tandem_kv_aborts_total", "Hand-offs given up", sent.aborts + received.aborts),
        counter("tandem_kv_probes_failed_total", "Tests of a link that failed", received.probes_failed),
        Metric("tandem_kv_retries_total", "Second prefill pods asked, by reason", "counter", retries),
        counter("tandem_kv_rejects_total", "Pods that do not match this one", sent.rejects + received.rejects),
        counter("tandem_kv_bad_frames_total", "Connections with garbage", sent.bad_frames + received.bad_frames),
        counter("tandem_kv_busy_total", "Hand-offs refused for lack of room", sent.busy + received.busy),
        counter("tandem_kv_peers_lost_total", "Prefill pods lost", received.peers_lost),
        counter("tandem_kv_sent_total", "Requests whose KV was sent and acknowledged", sent.completed),
        counter("tandem_kv_received_total", "Requests whose KV came from another pod", received.completed),
        Metric("tandem_kv_recompute_total", "Prompts computed here instead, by reason", "counter", reasons),
        gauge("tandem_kv_inflight", "Hand-offs under way", pod.sender.transfers + pod.receiver.transfers),
        *link_metrics(pod),
    ]
