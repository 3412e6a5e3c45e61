"""Prefill side of the kv port: takes PREFILL from decode pods, computes, pushes pages while it computes.

Pages are held until ACK or ABORT; a lost connection, a missed heartbeat or the request's deadline frees them too.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.contracts.framing import FrameError
from tandem_runtime.engine.events import Broken, Event, PagesComputed, PrefillDone, Reason
from tandem_runtime.engine.request import page_count
from tandem_runtime.transfer.identity import KvIdentity
from tandem_runtime.transfer.pace import LinkPace
from tandem_runtime.transfer.wire import (
    HELLO_SECONDS,
    READ_LIMIT_BYTES,
    Channel,
    TransferStats,
    beat,
    checksum,
    mismatch,
)

log = logging.getLogger(__name__)

BUSY_RETRY_MS = 200


class KvSender:
    """Serves the kv port. `draining`: new work is answered with BUSY, work under way is finished."""

    def __init__(self, identity: KvIdentity, stats: TransferStats, pace: LinkPace | None = None) -> None:
        self.identity, self.stats, self.pace = identity, stats, pace
        self.draining = False
        self.on_change: Callable[[], None] = lambda: None
        """Called when a request is over: there is room again."""
        self.connections: set[SenderConnection] = set()
        self._server: asyncio.Server | None = None

    async def start(self, bind: str, port: int) -> int:
        """The port that it listens on (useful when 0 was asked for)."""
        self._server = await asyncio.start_server(self._serve, bind, port, limit=READ_LIMIT_BYTES)
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def transfers(self) -> int:
        """Requests in work for decode pods."""
        return sum(len(c.outbound) for c in self.connections)

    def stop(self) -> None:
        """Closes the port and all connections."""
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.channel.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        channel = Channel(reader, writer)
        connection = SenderConnection(self, channel)
        try:
            peer = await self._greet(channel)
            if peer is not None:
                self.connections.add(connection)
                await connection.run(peer)
        except FrameError as error:
            self.stats.bad_frames += 1
            log.warning("kv connection from %s closed: %s", channel.peer, error)
        except (OSError, EOFError, TimeoutError) as error:
            log.info("kv connection from %s ended: %s", channel.peer, type(error).__name__)
        except asyncio.CancelledError:
            pass  # the event loop ends, and nobody waits for this task
        finally:
            self.connections.discard(connection)
            connection.end()
            channel.close()

    async def _greet(self, channel: Channel) -> kv.Hello | None:
        peer = await asyncio.wait_for(channel.receive(), HELLO_SECONDS)
        if not isinstance(peer, kv.Hello):
            raise FrameError(f"{type(peer).__name__} before HELLO")
        reason = mismatch(self.identity.hello, peer)
        if reason:
            self.stats.rejects += 1
            log.warning("pod %s at %s rejected: %s", peer.pod, channel.peer, reason)
            channel.send(self.identity.reject(reason, peer))
            return None
        channel.send(self.identity.hello)
        return peer


@dataclass(slots=True, eq=False)
class Outbound:
    """One request that is computed for the peer."""

    connection: SenderConnection
    request: kv.Prefill
    handle: int = 0
    granted: list[tuple[int, int]] = field(default_factory=list)
    computed: deque[list[tuple[int, int, bytes]]] = field(default_factory=deque)
    """Payloads of pages that are still to be sent: (layer_first, layer_end, bytes)."""
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


class SenderConnection:
    """One decode pod."""

    def __init__(self, sender: KvSender, channel: Channel) -> None:
        self.channel = channel
        self.outbound: dict[tuple[str, int], Outbound] = {}
        self.wake = asyncio.Event()
        self._sender, self._identity = sender, sender.identity
        self._peer_incarnation = ""

    async def run(self, peer: kv.Hello) -> None:
        """Until the connection ends."""
        self._peer_incarnation = peer.incarnation
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
        pages = page_count(len(message.tokens), self._identity.hello.layout.page_tokens)
        self.channel.send(kv.Ready(*key, pages))

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
            for layer_first, layer_end, payload in transfer.computed.popleft():
                await self._pace(len(payload), transfer.sent_frames == 0)
                if transfer.ended:
                    return True
                self._send_frame(transfer, (page, generation), (layer_first, layer_end), payload)
                await self.channel.drain()
            transfer.sent_pages += 1
            return True
        if transfer.done is not None and not transfer.computed:
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
                chain_hash=self._identity.chain_hash(request.tokens, request.salt),
                frames_sent=transfer.sent_frames,
            )
        )
