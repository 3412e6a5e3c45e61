"""Prefill side of one connection: the requests of one decode pod, and the pages that go to it.

The rules are in `outbound`; here are the engine, the connection and the clock.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from functools import lru_cache
from math import inf
from typing import TYPE_CHECKING, Final

import msgspec

from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.contracts.framing import FrameError
from tandem_runtime.contracts.pod_protocol import Reason
from tandem_runtime.engine.client import Hurry
from tandem_runtime.engine.events import Broken, Event, PagesAgain, PagesComputed, Parts, Payload, PrefillDone
from tandem_runtime.transfer.channel import Channel
from tandem_runtime.transfer.identity import KvIdentity
from tandem_runtime.transfer.link_health import LinkHealth
from tandem_runtime.transfer.outbound import Outbound, PageOut
from tandem_runtime.transfer.steps import OutboundStep, Released, Reread, Tell
from tandem_runtime.transfer.wire import beat, checksum, frame_checksum

if TYPE_CHECKING:
    from tandem_runtime.transfer.sender import KvSender

BUSY_RETRY_MS: Final = 200
WATCH_SECONDS: Final = 0.5
"""How often deadlines are looked at."""
TAKEN_BYTES: Final = 1 << 20
"""Payload sent before the engine hears of it: each word wakes it."""
MAX_BLOCK_BYTES: Final = 8 << 20
"""Of a test block: enough to measure with, not enough to harm."""


class Job:
    """One request that is computed for the peer: takes the engine's events."""

    def __init__(self, link: SenderLink, core: Outbound) -> None:
        self.link, self.core, self.handle = link, core, 0
        self.came = link.now()

    def on_event(self, event: Event) -> None:
        """Engine's events of this request."""
        match event:
            case PagesComputed(first=first, payloads=payloads):
                self.link.take_pages(self, first, payloads)
            case PrefillDone():
                self.core.finish(event, self.link.now())
                self.link.observe(self, event)
            case Broken(reason=reason, message=message):
                self.link.broken(self, reason, message)
        self.link.wake.set()


class SenderLink:
    """One decode pod."""

    def __init__(self, sender: KvSender, channel: Channel) -> None:
        self.channel = channel
        self.jobs: dict[tuple[str, int], Job] = {}
        self.wake = asyncio.Event()
        self.now = asyncio.get_running_loop().time
        self._sender, self._stats = sender, sender.stats
        self._peer_incarnation = self._token = ""
        self._blocks: list[kv.Probe] = []
        self._taken: list[Parts] = []
        self._taken_bytes = 0
        self.health: LinkHealth | None = None
        self._parted = False

    @property
    def _identity(self) -> KvIdentity:
        """Of now: the pod may have become another one before this peer has said hello."""
        return self._sender.identity

    async def run(self, peer: kv.Hello) -> None:
        """Until the connection ends."""
        self._peer_incarnation, self._token = peer.incarnation, peer.token
        tasks = [
            asyncio.create_task(beat(self.channel, lambda: kv.Ping(*self._identity.pulse()))),
            asyncio.create_task(self._pump()),
            asyncio.create_task(self._watch()),
        ]
        tasks[1].add_done_callback(lambda _: self.channel.close())
        try:
            while True:
                message = await self.channel.receive()
                if self._parted:
                    break  # it was meant for who this was
                self._handle(message)
        finally:
            for task in tasks:
                task.cancel()

    def end(self) -> None:
        """The connection is over: frees everything that the peer asked for."""
        self._tell_taken()
        for job in list(self.jobs.values()):
            self._do(job, job.core.give_up())

    def part(self) -> None:
        """Ends it at once, from our side."""
        self._parted = True
        self.end()
        self.channel.close()

    def _handle(self, message: kv.Message) -> None:
        now = self.now()
        if self.health is not None:
            self.health.last_seen = now
        for job in self.jobs.values():
            job.core.renew(now)
        match message:
            case kv.Prefill():
                self._accept(message)
            case kv.Grant() | kv.Ack() | kv.Abort() | kv.Nack():
                if named := self.jobs.get((message.req, message.attempt)):
                    self._advance(named, message)
            case kv.Ping():
                self.channel.send(kv.Pong(*self._identity.pulse()))
            case kv.Pong():
                pass
            case kv.Probe() if not self._blocks and 0 < message.block_bytes <= MAX_BLOCK_BYTES:
                self._blocks.append(message)
                self.wake.set()
            case _:
                raise FrameError(f"{type(message).__name__} is not for a prefill pod, or not now")

    def _advance(self, job: Job, message: kv.Grant | kv.Ack | kv.Abort | kv.Nack) -> None:
        core, now = job.core, self.now()
        match message:
            case kv.Grant(pages=pages, first=first):
                self._do(job, core.grant(pages, first, now))
            case kv.Nack(pages=pages):
                self._stats.nacks += 1
                self._do(job, core.nack(pages, now))
            case kv.Ack():
                self._do(job, core.acknowledge())
            case kv.Abort():
                self._do(job, core.give_up())
        self.wake.set()

    def _accept(self, message: kv.Prefill) -> None:
        key = (message.req, message.attempt)
        if key in self.jobs:
            return  # said twice: the first one is in work
        page_tokens = self._identity.layout.page_tokens
        prompt = message.prompt_tokens or len(message.tokens)
        held = message.have_pages * page_tokens
        if not (0 < prompt <= len(message.tokens) and 0 <= held < len(message.tokens)):
            text = f"{prompt} prompt tokens of {len(message.tokens)}, {message.have_pages} pages held: not possible"
            self.channel.send(kv.Abort(*key, text))
            return
        job = Job(self, Outbound(message, self._identity.layout, self._sender.limits, self.now()))
        self.jobs[key] = job
        if self._sender.refuses:
            self._refuse(job)
            return
        job.handle = self._identity.engine.open(
            job,
            message.tokens[:prompt],
            message.tokens[prompt:],
            message.sampling,
            message.remaining_ms / 1000,
            handoff=True,
            salt=message.salt,
            hurry=Hurry(message.priority, inf if message.objective_ms is None else message.objective_ms / 1000),
            skip_pages=message.have_pages,
        )
        self._do(job, job.core.accept())

    def _refuse(self, job: Job) -> None:
        self._stats.busy += 1
        self._do(job, job.core.refuse(BUSY_RETRY_MS))

    def broken(self, job: Job, reason: Reason, message: str) -> None:
        """The engine ended the request."""
        if reason is Reason.OVERLOADED:
            self._refuse(job)
        else:
            self._do(job, job.core.give_up(f"{reason}: {message}"))

    def observe(self, job: Job, done: PrefillDone) -> None:
        """For the pod's figures."""
        if self._sender.observe is not None:
            self._sender.observe(job.core.request, job.came, done)

    def take_pages(self, job: Job, first: int, payloads: list[Parts]) -> None:
        """The engine has computed pages, or read them again."""
        self._identity.engine.taken(job.core.add_pages(first, payloads, self.now()))

    def _do(self, job: Job, steps: list[OutboundStep]) -> None:
        for step in steps:
            match step:
                case Tell(message):
                    self.channel.send(message)
                case Reread(ordinals):
                    self._identity.engine.send(PagesAgain(job.handle, ordinals))
                case Released(completed):
                    self._release(job, completed)

    def _release(self, job: Job, completed: bool) -> None:
        if completed:
            self._stats.completed += 1
        else:
            self._stats.aborts += 1
        self._identity.engine.taken(job.core.drop_computed())
        self.jobs.pop(job.core.key, None)
        if job.handle:
            self._identity.engine.close(job.handle)
        self._sender.on_change()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for job in list(self.jobs.values()):
                steps = job.core.expire(self.now())
                self._stats.expired += bool(steps)
                self._do(job, steps)

    async def _pump(self) -> None:
        """Sends what is computed and granted, one page of each request in turn."""
        with suppress(OSError):
            while True:
                self.wake.clear()
                moved = await self._send_block()
                for job in list(self.jobs.values()):
                    moved |= await self._push(job)
                if not moved:
                    self._tell_taken()
                    await self.wake.wait()

    def _tell_taken(self) -> None:
        taken, self._taken, self._taken_bytes = self._taken, [], 0
        if taken:
            self._identity.engine.taken(taken)

    async def _push(self, job: Job) -> bool:
        page = job.core.next_page()
        if page is not None:
            try:
                await self._send_page(job, page)
            finally:
                self._taken.append(page.parts)
                self._taken_bytes += sum(len(payload) for _, _, payload in page.parts)
                if self._taken_bytes >= TAKEN_BYTES:
                    self._tell_taken()
            return True
        steps = job.core.commit(self._token, self.now())
        self._do(job, steps)
        return bool(steps)

    async def _send_page(self, job: Job, page: PageOut) -> None:
        for layer_first, layer_end, payload in page.parts:
            await self._pace(len(payload), job.core.sent_frames == 0)
            if job.core.ended:
                return
            await self._send_frame(job.core, page.place, (layer_first, layer_end), payload)
        self._stats.resent_pages += job.core.is_repair(page)
        job.core.sent(page, self.now())

    async def _pace(self, payload_bytes: int, starts: bool) -> None:
        if self._sender.pace is not None:
            await asyncio.sleep(self._sender.pace.occupy(self.now(), payload_bytes, starts))

    async def _send_frame(
        self, core: Outbound, place: tuple[int, int], layers: tuple[int, int], payload: Payload
    ) -> None:
        frame = kv.Frame(
            req=core.request.req,
            attempt=core.request.attempt,
            incarnation=self._peer_incarnation,
            layer_first=layers[0],
            layer_end=layers[1],
            page=place[0],
            generation=place[1],
            len=len(payload),
            crc32c=0,
        )
        frame = msgspec.structs.replace(frame, crc32c=frame_checksum(frame, payload))
        core.sent_frames += 1
        self._stats.tx_frames += 1
        self._stats.tx_bytes += len(payload)
        await self.channel.send_payload(frame, payload)

    async def _send_block(self) -> bool:
        """Answers a test of the link."""
        if not self._blocks:
            return False
        probe = self._blocks.pop()
        payload, crc32c = make_block(probe.block_bytes)
        await self.channel.send_payload(kv.Block(probe.nonce, len(payload), crc32c), payload)
        return True


@lru_cache(maxsize=1)
def make_block(count: int) -> tuple[bytes, int]:
    """Random bytes and their checksum; made once, so that the test is of the link."""
    payload = os.urandom(count)
    return payload, checksum(payload)
