"""Prefill side of one connection: the requests of one decode pod, and the pages that go to it."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.contracts.framing import FrameError
from tandem_runtime.contracts.pod_protocol import Reason
from tandem_runtime.engine.events import Broken, Event, PagesComputed, PrefillDone
from tandem_runtime.engine.request import page_count
from tandem_runtime.transfer.identity import chain_hash
from tandem_runtime.transfer.wire import Channel, beat, checksum

if TYPE_CHECKING:
    from tandem_runtime.transfer.sender import KvSender

BUSY_RETRY_MS = 200


@dataclass(slots=True, eq=False)
class Outbound:
    """One request that is computed for the peer."""

    connection: SenderLink
    request: kv.Prefill
    handle: int = 0
    granted: list[tuple[int, int]] = field(default_factory=list)
    computed: deque[list[tuple[int, int, bytes]]] = field(default_factory=deque)
    """Payloads of pages that are still to be sent: (layer_first, layer_end, bytes)."""
    pages: int = 0
    """How many there will be."""
    sent_pages: int = 0
    sent_frames: int = 0
    done: PrefillDone | None = None
    ended: bool = False

    def on_event(self, event: Event) -> None:
        """Engine's events of this request."""
        match event:
            case PagesComputed(payloads=payloads):
                self.computed.extend(payloads)
            case PrefillDone():
                self.done = event
            case Broken(reason=reason, message=message):
                self.connection.broken(self, reason, message)
        self.connection.wake.set()


class SenderLink:
    """One decode pod."""

    def __init__(self, sender: KvSender, channel: Channel) -> None:
        self.channel = channel
        self.outbound: dict[tuple[str, int], Outbound] = {}
        self.wake = asyncio.Event()
        self._sender, self._identity = sender, sender.identity
        self._peer_incarnation = self._token = ""

    async def run(self, peer: kv.Hello) -> None:
        """Until the connection ends."""
        self._peer_incarnation, self._token = peer.incarnation, peer.token
        tasks = [
            asyncio.create_task(beat(self.channel, lambda: kv.Ping(*self._identity.pulse()))),
            asyncio.create_task(self._pump()),
        ]
        tasks[1].add_done_callback(lambda _: self.channel.close())
        try:
            while True:
                self._handle(await self.channel.receive())
        finally:
            for task in tasks:
                task.cancel()

    def end(self) -> None:
        """Frees everything that the peer asked for."""
        for transfer in list(self.outbound.values()):
            self._drop(transfer)

    def _handle(self, message: kv.Message) -> None:
        match message:
            case kv.Prefill():
                self._accept(message)
            case kv.Grant(req, attempt, pages):
                if transfer := self.outbound.get((req, attempt)):
                    transfer.granted.extend(pages)
                    self.wake.set()
            case kv.Ack(req, attempt):
                if transfer := self.outbound.get((req, attempt)):
                    self._sender.stats.completed += 1
                    self._drop(transfer)
            case kv.Abort(req, attempt):
                if transfer := self.outbound.get((req, attempt)):
                    self._sender.stats.aborts += 1
                    self._drop(transfer)
            case kv.Nack(req, attempt):
                if transfer := self.outbound.get((req, attempt)):
                    self._give_up(transfer, "pages arrived damaged")
            case kv.Ping():
                self.channel.send(kv.Pong(*self._identity.pulse()))
            case kv.Pong():
                pass
            case _:
                raise FrameError(f"{type(message).__name__} is not for a prefill pod")

    def _accept(self, message: kv.Prefill) -> None:
        key = (message.req, message.attempt)
        if key in self.outbound:
            return  # said twice: the first one is in work
        if self._sender.draining:
            self._refuse(message)
            return
        prompt = message.prompt_tokens or len(message.tokens)
        if not 0 < prompt <= len(message.tokens) or message.have_pages:
            text = f"{prompt} prompt tokens of {len(message.tokens)}, {message.have_pages} pages held: not possible"
            self.channel.send(kv.Abort(*key, text))
            return
        transfer = Outbound(self, message)
        self.outbound[key] = transfer
        transfer.handle = self._identity.engine.open(
            transfer,
            message.tokens[:prompt],
            message.tokens[prompt:],
            message.sampling,
            message.remaining_ms / 1000,
            handoff=True,
        )
        transfer.pages = page_count(len(message.tokens), self._identity.layout.page_tokens)
        self.channel.send(kv.Ready(*key, transfer.pages))

    def _refuse(self, message: kv.Prefill) -> None:
        self._sender.stats.busy += 1
        self.channel.send(kv.Busy(message.req, message.attempt, BUSY_RETRY_MS))

    def broken(self, transfer: Outbound, reason: Reason, message: str) -> None:
        """The engine ended the request."""
        if reason is Reason.OVERLOADED:
            self._refuse(transfer.request)
            self._drop(transfer)
        else:
            self._give_up(transfer, f"{reason}: {message}")

    def _give_up(self, transfer: Outbound, reason: str) -> None:
        self._sender.stats.aborts += 1
        self.channel.send(kv.Abort(transfer.request.req, transfer.request.attempt, reason))
        self._drop(transfer)

    def _drop(self, transfer: Outbound) -> None:
        transfer.ended = True
        self._identity.engine.taken(transfer.computed)
        transfer.computed.clear()
        self.outbound.pop((transfer.request.req, transfer.request.attempt), None)
        self._identity.engine.close(transfer.handle)
        self._sender.on_change()

    async def _pump(self) -> None:
        """Sends what is computed and granted, one page of each request in turn."""
        with suppress(OSError):
            while True:
                self.wake.clear()
                moved = False
                for transfer in list(self.outbound.values()):
                    moved |= await self._push_page(transfer)
                if not moved:
                    await self.wake.wait()

    async def _push_page(self, transfer: Outbound) -> bool:
        if transfer.computed and transfer.sent_pages < len(transfer.granted):
            page, generation = transfer.granted[transfer.sent_pages]
            payloads = transfer.computed.popleft()
            try:
                for layer_first, layer_end, payload in payloads:
                    await self._pace(len(payload), transfer.sent_frames == 0)
                    if transfer.ended:
                        return True
                    self._send_frame(transfer, (page, generation), (layer_first, layer_end), payload)
                    await self.channel.drain()
            finally:
                self._identity.engine.taken([payloads])
            transfer.sent_pages += 1
            return True
        if transfer.done is not None and transfer.sent_pages == transfer.pages:
            self._commit(transfer, transfer.done)
            transfer.done = None
            return True
        return False

    async def _pace(self, payload_bytes: int, starts: bool) -> None:
        if self._sender.pace is not None:
            now = asyncio.get_running_loop().time()
            await asyncio.sleep(self._sender.pace.occupy(now, payload_bytes, starts))

    def _send_frame(self, transfer: Outbound, place: tuple[int, int], layers: tuple[int, int], payload: bytes) -> None:
        frame = kv.Frame(
            req=transfer.request.req,
            attempt=transfer.request.attempt,
            incarnation=self._peer_incarnation,
            layer_first=layers[0],
            layer_end=layers[1],
            page=place[0],
            generation=place[1],
            len=len(payload),
            crc32c=checksum(payload),
        )
        self.channel.send(frame, payload)
        transfer.sent_frames += 1
        self._sender.stats.tx_frames += 1
        self._sender.stats.tx_bytes += len(payload)

    def _commit(self, transfer: Outbound, done: PrefillDone) -> None:
        request = transfer.request
        self.channel.send(
            kv.Commit(
                req=request.req,
                attempt=request.attempt,
                n_tokens=done.n_tokens,
                first_token=done.first_token,
                logprob=done.logprob,
                chain_hash=chain_hash(request.tokens, self._token, request.salt),
                frames_sent=transfer.sent_frames,
            )
        )
