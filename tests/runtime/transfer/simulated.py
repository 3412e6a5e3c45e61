"""A decode pod and prefill pods without sockets, threads or time: real engines and the real state machines of the
hand-off, over a network that delays, repeats, damages and loses what it is told to.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

import msgspec
from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.contracts.hashing import prompt_digest
from tandem_runtime.contracts.pod_protocol import PrefillPeer, Reason
from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.engine.emulated_executor import EmulatedExecutor
from tandem_runtime.engine.events import (
    Abort,
    Add,
    Broken,
    Event,
    Finished,
    Output,
    PagesAgain,
    PagesComputed,
    PrefillDone,
    RemoteAbandoned,
    RemoteCommit,
    RemoteFailed,
    RemotePage,
    Reserved,
)
from tandem_runtime.engine.executor import Executor
from tandem_runtime.engine.limits import SchedulerSettings
from tandem_runtime.engine.loop import Engine
from tandem_runtime.engine.prefixes import PrefixHashes
from tandem_runtime.engine.request import Phase, Request
from tandem_runtime.engine.scheduler import Scheduler
from tandem_runtime.transfer.inbound import Inbound
from tandem_runtime.transfer.limits import HandoffLimits
from tandem_runtime.transfer.outbound import Outbound
from tandem_runtime.transfer.pull import Pull
from tandem_runtime.transfer.steps import Completed, GivenUp, InboundStep, OutboundStep, Released, Reread, Tell
from tandem_runtime.transfer.wire import frame_checksum

from tests.runtime.server.pods import FAST

PAGE_TOKENS = 32
TOKEN = "secret"
LOST_SECONDS = 2.4
SETTINGS = SchedulerSettings(step_tokens=64, free_page_share=0.0, headroom_tokens=8)
LIMITS = HandoffLimits(window_bytes=400)
"""Two pages: every longer prompt needs several GRANTs."""


class Clock:
    now = 0.0


class SteppedEngine(Engine):
    """The real engine, turned by hand instead of by its thread."""

    def __init__(self, clock: Clock, pages: int, window: int, executor: Executor | None = None) -> None:
        coefficients = type(FAST)(**{f: getattr(FAST, f) for f in FAST.__struct_fields__} | {"kv_tokens": pages * 32})
        executor = executor or EmulatedExecutor(coefficients, window_tokens=window, sleep=lambda _: None)
        self.out: list[Event] = []
        super().__init__(executor, SETTINGS, self.out.extend, lambda: clock.now)
        self.scheduler = Scheduler(executor.load(), SETTINGS, self._events.append)

    def turn(self) -> list[Event]:
        """One step, and what came of it."""
        self._drain(block=False)
        self.scheduler.expire(self._clock())
        if work := self.scheduler.plan(self._clock()):
            self._step(work)
        self._tell_pages()
        events, self._events[:] = [*self.out, *self._events], []
        self.out.clear()
        assert self.scheduler.leaked_pages() == 0
        return events


@dataclass
class Wire:
    """One connection: in order, each way."""

    number: int
    incarnation: str
    """Of the decode pod."""
    to_prefill: deque[kv.Message] = field(default_factory=deque)
    to_decode: deque[tuple[kv.Message, bytes]] = field(default_factory=deque)
    up: bool = True
    cut_since: float | None = None


class PrefillPod:
    """The shell of `sender_link`, without I/O."""

    def __init__(self, clock: Clock, number: int, window: int = 0, executor: Executor | None = None) -> None:
        self.number, self.clock = number, clock
        self.engine = SteppedEngine(clock, 10, window, executor)
        self.layout = self.engine.scheduler.capacity.layout
        self.jobs: dict[tuple[str, int], tuple[Outbound, int, Wire]] = {}
        self._by_handle: dict[int, tuple[str, int]] = {}
        self._handles = 0

    def hear(self, wire: Wire, message: kv.Message) -> None:
        now = self.clock.now
        if isinstance(message, kv.Prefill):
            self._accept(wire, message)
            return
        assert isinstance(message, kv.Grant | kv.Nack | kv.Ack | kv.Abort)
        job = self.jobs.get((message.req, message.attempt))
        if job is None:
            return
        match message:
            case kv.Grant(pages=pages, first=first):
                self.do(job, job[0].grant(pages, first, now))
            case kv.Nack(pages=pages):
                self.do(job, job[0].nack(pages, now))
            case kv.Ack():
                self.do(job, job[0].acknowledge())
            case kv.Abort():
                self.do(job, job[0].give_up())

    def _accept(self, wire: Wire, message: kv.Prefill) -> None:
        key = (message.req, message.attempt)
        if key in self.jobs:
            return
        self._handles += 1
        job = self.jobs[key] = (Outbound(message, self.layout, LIMITS, self.clock.now), self._handles, wire)
        self._by_handle[self._handles] = key
        self.engine.send(Add(make_request(self._handles, message.tokens, message.sampling, self.clock, handoff=True)))
        self.do(job, job[0].accept())

    def do(self, job: tuple[Outbound, int, Wire], steps: list[OutboundStep]) -> None:
        core, handle, wire = job
        for step in steps:
            match step:
                case Tell(message) if wire.up:
                    wire.to_decode.append((message, b""))
                case Reread(ordinals):
                    self.engine.send(PagesAgain(handle, ordinals))
                case Released():
                    assert self.jobs.pop(core.key)[0] is core, "released once"
                    self.engine.send(Abort(handle))
                    core.drop_computed()

    def turn(self) -> None:
        for event in self.engine.turn():
            job = self.jobs.get(self._by_handle.get(event.handle, ("", 0)))
            if job is None or job[1] != event.handle:
                continue
            match event:
                case PagesComputed(first=first, payloads=payloads):
                    job[0].add_pages(first, payloads, self.clock.now)
                case PrefillDone():
                    job[0].finish(event, self.clock.now)
                case Broken(reason=reason, message=message):
                    assert reason is not Reason.KV_CORRUPT, message
                    self.do(job, job[0].give_up(message))

    def pump(self) -> bool:
        """One page or COMMIT of each request."""
        moved = False
        for job in list(self.jobs.values()):
            core, _, wire = job
            page = core.next_page()
            if page is None:
                steps = core.commit(TOKEN, self.clock.now)
                self.do(job, steps)
                moved |= bool(steps)
                continue
            for first, end, payload in page.parts:
                place = (wire.incarnation, first, end, *page.place)
                frame = kv.Frame(*core.key, *place, len(payload), 0)
                frame = msgspec.structs.replace(frame, crc32c=frame_checksum(frame, payload))
                core.sent_frames += 1
                wire.to_decode.append((frame, bytes(payload)))
            core.sent(page, self.clock.now)
            moved = True
        return moved

    def expire(self, wire: Wire, alive: bool) -> None:
        for job in list(self.jobs.values()):
            if alive and job[2] is wire:
                job[0].renew(self.clock.now)
            self.do(job, job[0].expire(self.clock.now))

    def lose(self, wire: Wire) -> None:
        for job in list(self.jobs.values()):
            if job[2] is wire:
                self.do(job, job[0].give_up())


class DecodePod:
    """The shells of `receiver` and `receiver_link`, without I/O."""

    def __init__(
        self, clock: Clock, incarnation: str, wires: dict[int, Wire], window: int = 0, executor: Executor | None = None
    ) -> None:
        self.clock, self.incarnation, self.wires = clock, incarnation, wires
        self.engine = SteppedEngine(clock, 14, window, executor)
        self.layout = self.engine.scheduler.capacity.layout
        self.fetches: dict[int, tuple[Pull, Inbound]] = {}
        self.inbound: dict[tuple[str, int], Inbound] = {}
        self.peers: dict[int, PrefillPeer] = {}
        self.open: dict[int, Request] = {}
        self.ends: Counter[int] = Counter()
        self.answers: dict[int, list[int]] = {}
        self.stale = self.completed = self.retries = 0

    def submit(self, handle: int, tokens: list[int], peer: int | None, max_tokens: int) -> None:
        request = make_request(handle, tokens, Sampling(max_tokens=max_tokens), self.clock, remote=peer is not None)
        if peer is not None:
            self.peers[handle] = peer_of(peer)
        self.open[handle], self.answers[handle] = request, []
        self.engine.send(Add(request))

    def cancel(self, handle: int) -> None:
        self._end(handle)
        self.abandon(handle)
        self.engine.send(Abort(handle))

    def abandon(self, handle: int) -> None:
        fetch = self.fetches.pop(handle, None)
        if fetch is not None:
            self.inbound.pop(fetch[1].key, None)
            self._tell(fetch[1], fetch[1].give_up("dropped", "no longer wanted"))

    def turn(self) -> None:
        for event in self.engine.turn():
            if event.handle not in self.open:
                continue
            match event:
                case Reserved(pages=pages, have_pages=have_pages):
                    self._fetch(event.handle, pages, have_pages)
                case RemoteAbandoned():
                    self.abandon(event.handle)
                case Output(ids=ids):
                    self.answers[event.handle].extend(ids)
                case Finished():
                    self._end(event.handle)
                case Broken(reason=reason, message=message):
                    assert reason is not Reason.KV_CORRUPT, message
                    self._end(event.handle)
                    self.abandon(event.handle)

    def _end(self, handle: int) -> None:
        del self.open[handle]
        self.ends[handle] += 1

    def _fetch(self, handle: int, pages: list[tuple[int, int]], have_pages: int) -> None:
        request = self.open[handle]
        message = kv.Prefill(
            str(handle), 0, list(request.tokens), request.sampling, 0, 60_000, have_pages, b"", request.prompt_tokens
        )
        self._start(Pull(handle, message, self.peers[handle], pages, request.deadline))

    def _start(self, pull: Pull) -> None:
        attempt = pull.start(self.layout, LIMITS, self.clock.now)
        self.fetches[pull.handle] = (pull, attempt)
        self.inbound[attempt.key] = attempt
        wire = self.wires.get(attempt.peer.kv_port)
        if wire is None or not wire.up:
            self.do(attempt, attempt.give_up("peer_lost"))
        else:
            self.do(attempt, attempt.ask(self.clock.now))

    def hear(self, wire: Wire, message: kv.Message, payload: bytes) -> None:
        if isinstance(message, kv.Frame):
            self._take(message, payload)
            return
        assert isinstance(message, kv.Ready | kv.Busy | kv.Commit | kv.Abort)
        attempt = self.inbound.get((message.req, message.attempt))
        if attempt is not None:
            self.do(attempt, attempt.hear(message, TOKEN, self.clock.now))
        elif isinstance(message, kv.Ready | kv.Commit) and wire.up:
            wire.to_prefill.append(kv.Abort(message.req, message.attempt, "not wanted"))

    def _take(self, frame: kv.Frame, payload: bytes) -> None:
        attempt = self.inbound.get((frame.req, frame.attempt))
        ordinal = None if attempt is None else attempt.place(frame, self.incarnation)
        if attempt is None or ordinal is None:
            self.stale += 1
            if attempt is not None:
                self.do(attempt, attempt.take(frame, None, False, self.clock.now))
            return
        held = self.engine.scheduler.requests[attempt.handle]
        assert held.phase is Phase.REMOTE_KV or attempt.handle not in self.open, "written while another uses it"
        assert held.pages[ordinal] == frame.page, "the page belongs to somebody else"
        intact = frame_checksum(frame, payload) == frame.crc32c
        self.do(attempt, attempt.take(frame, ordinal, intact, self.clock.now))
        if intact:
            place = (ordinal, frame.generation, frame.layer_first, frame.layer_end)
            self.engine.send(RemotePage(attempt.handle, *place, payload))

    def do(self, attempt: Inbound, steps: list[InboundStep]) -> None:
        self._tell(attempt, steps)
        for step in steps:
            match step:
                case Completed(commit):
                    del self.inbound[attempt.key], self.fetches[attempt.handle]
                    self.completed += 1
                    self.engine.send(RemoteCommit(attempt.handle, commit.first_token, 0.0, attempt.received_bytes))
                case GivenUp():
                    self.inbound.pop(attempt.key, None)
                    self._gave_up(attempt)

    def _tell(self, attempt: Inbound, steps: list[InboundStep]) -> None:
        wire = self.wires.get(attempt.peer.kv_port)
        for step in steps:
            if isinstance(step, Tell) and wire is not None and wire.up:
                wire.to_prefill.append(step.message)

    def _gave_up(self, attempt: Inbound) -> None:
        pull, current = self.fetches[attempt.handle]
        assert current is attempt
        others = [peer_of(number) for number, wire in self.wires.items() if wire.up]
        if pull.retry(others, self.clock.now):
            self.retries += 1
            self._start(pull)
        else:
            del self.fetches[attempt.handle]
            self.engine.send(RemoteFailed(attempt.handle))

    def expire(self) -> None:
        for attempt in list(self.inbound.values()):
            self.do(attempt, attempt.expire(self.clock.now))

    def lose(self, wire: Wire) -> None:
        for attempt in list(self.inbound.values()):
            if attempt.peer.kv_port == wire.number:
                self.do(attempt, attempt.give_up("peer_lost"))


def peer_of(number: int) -> PrefillPeer:
    return PrefillPeer(f"p{number}", "host", number, "")


def make_request(handle: int, tokens: list[int], sampling: Sampling, clock: Clock, **more: Any) -> Request:
    return Request(
        handle=handle,
        tokens=list(tokens),
        prompt_tokens=len(tokens),
        sampling=sampling,
        deadline=clock.now + 60.0,
        prompt_digest=prompt_digest(tokens),
        prefixes=PrefixHashes(TOKEN.encode(), b"", PAGE_TOKENS),
        **more,
    )


def damage(payload: bytes) -> bytes:
    return payload[:-1] + bytes([payload[-1] ^ 1]) if payload else payload
