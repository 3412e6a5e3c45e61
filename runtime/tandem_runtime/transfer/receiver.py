"""Decode side of the hand-off: asks a prefill pod for KV, checks every frame before and after it is received.

Whatever goes wrong (peer lost, busy, late, damaged) ends in the engine computing the prompt itself.
"""

from __future__ import annotations

import asyncio
import logging

from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.contracts.framing import MAX_HELLO_BYTES, FrameError
from tandem_runtime.engine.events import RemoteCommit, RemoteFailed, RemotePage
from tandem_runtime.transfer.identity import KvIdentity
from tandem_runtime.transfer.inbound import Inbound, check_shape
from tandem_runtime.transfer.wire import READ_LIMIT_BYTES, Channel, TransferStats, beat, checksum, mismatch

log = logging.getLogger(__name__)

UNTAKEN_BYTES = 16 << 20
"""Payload that may wait for the engine's next step; beyond it TCP holds the senders back."""
ROOM_POLL_SECONDS = 0.001
CONNECT_SECONDS = 2.0
"""A pod that does not answer by then is gone or overloaded; the prompt is computed here."""


class KvReceiver:
    """All prefill pods that this decode pod takes KV from; one persistent connection each."""

    def __init__(self, identity: KvIdentity, stats: TransferStats) -> None:
        self.identity, self.stats = identity, stats
        self.fallbacks: dict[str, int] = {}
        """Why prompts were computed here after all -> how often."""
        self._handed_bytes = 0
        self._links: dict[tuple[str, int], ReceiverLink] = {}
        self._by_handle: dict[int, tuple[ReceiverLink, Inbound]] = {}

    @property
    def transfers(self) -> int:
        """Requests whose KV is under way."""
        return len(self._by_handle)

    def fetch(self, transfer: Inbound) -> None:
        """Starts a transfer; the engine is told of its pages and its end. Never raises."""
        address = (transfer.peer.address, transfer.peer.kv_port)
        link = self._links.get(address)
        if link is None or link.closed:
            link = ReceiverLink(self, address)
            self._links[address] = link
        self._by_handle[transfer.handle] = (link, transfer)
        link.add(transfer)

    def abandon(self, handle: int, reason: str = "") -> None:
        """The engine has no more use for it: the peer is told, later frames are stale. With `reason` the prompt is
        computed here, and that is counted. Idempotent."""
        link, transfer = self._by_handle.pop(handle, (None, None))
        if link is not None and transfer is not None:
            link.forget(transfer, tell=reason or "no longer wanted")
            if reason:
                self._count_fallback(transfer, reason)

    def failed(self, transfer: Inbound, reason: str) -> None:
        """The link gave this transfer up: the engine computes here."""
        if self._by_handle.pop(transfer.handle, None) is not None:
            self._count_fallback(transfer, reason)
            self.identity.engine.send(RemoteFailed(transfer.handle))

    def _count_fallback(self, transfer: Inbound, reason: str) -> None:
        self.stats.fallbacks += 1
        self.fallbacks[reason] = self.fallbacks.get(reason, 0) + 1
        log.warning("request %s computes its prompt here: %s (%s)", transfer.key[0], reason, transfer.peer.pod)

    def completed(self, transfer: Inbound, message: kv.Commit) -> None:
        """Everything is here and checked."""
        self._by_handle.pop(transfer.handle, None)
        self.stats.completed += 1
        command = RemoteCommit(transfer.handle, message.first_token, message.logprob, transfer.received_bytes)
        self.identity.engine.send(command)

    def hand_over(self, page: RemotePage) -> None:
        """To the engine, which writes it between two steps."""
        self._handed_bytes += len(page.payload)
        self.identity.engine.send(page)

    async def room(self, channel: Channel) -> None:
        """Waits while too much payload waits for the engine."""
        engine = self.identity.engine.engine
        while self._handed_bytes - engine.taken_bytes > UNTAKEN_BYTES and not engine.ended.done():
            channel.heard = True  # the peer is not silent, we do not listen
            await asyncio.sleep(ROOM_POLL_SECONDS)

    def stop(self) -> None:
        """Closes all connections."""
        for link in list(self._links.values()):
            link.close()

    def dropped(self, link: ReceiverLink) -> None:
        """The link is closed."""
        if self._links.get(link.address) is link:
            del self._links[link.address]


class ReceiverLink:
    """The connection to one prefill pod; opened by the first transfer."""

    def __init__(self, receiver: KvReceiver, address: tuple[str, int]) -> None:
        self.address = address
        self.closed = False
        self._receiver, self._identity, self._stats = receiver, receiver.identity, receiver.stats
        self._inbound: dict[tuple[str, int], Inbound] = {}
        self._channel: Channel | None = None
        self._peer: kv.Hello | None = None
        self._token = ""
        """What both sides have said on this connection."""
        self._task = asyncio.create_task(self._run())

    def add(self, transfer: Inbound) -> None:
        """Asks for the transfer's KV, as soon as the connection stands."""
        self._inbound[transfer.key] = transfer
        if self._peer is not None:
            self._ask(transfer, self._peer)

    def forget(self, transfer: Inbound, tell: str = "") -> None:
        """No more of this transfer; with `tell` the peer hears why."""
        if self._inbound.pop(transfer.key, None) is not None and tell and self._channel is not None:
            self._stats.aborts += 1
            self._channel.send(kv.Abort(*transfer.key, tell))

    def close(self) -> None:
        """Ends the connection and every transfer on it."""
        self._task.cancel()

    async def _run(self) -> None:
        reason = "peer_lost"
        try:
            channel = await asyncio.wait_for(self._connect(), CONNECT_SECONDS)
            heartbeat = asyncio.create_task(beat(channel, lambda: kv.Ping(*self._identity.pulse())))
            try:
                while True:
                    await self._handle(channel, await channel.receive())
            finally:
                heartbeat.cancel()
        except FrameError as error:
            self._stats.bad_frames += 1
            reason = "protocol"
            log.warning("kv connection to %s closed: %s", self.address, error)
        except Rejected as error:
            self._stats.rejects += 1
            reason = "rejected"
            log.error("pod at %s and this pod do not match: %s", self.address, error)
        except (OSError, EOFError, TimeoutError) as error:
            self._stats.peers_lost += 1
            log.warning("prefill pod at %s lost: %s", self.address, type(error).__name__)
        finally:
            self.closed = True
            if self._channel is not None:
                self._channel.close()
            self._receiver.dropped(self)
            for transfer in list(self._inbound.values()):
                self._fail(transfer, reason)

    async def _connect(self) -> Channel:
        reader, writer = await asyncio.open_connection(*self.address, limit=READ_LIMIT_BYTES)
        channel = self._channel = Channel(reader, writer)
        own = self._identity.hello
        channel.send(own)
        answer = await channel.receive(MAX_HELLO_BYTES)
        if isinstance(answer, kv.Reject):
            hashes = f"peer's compat hash {answer.own_compat_hash}, this pod's {answer.peer_compat_hash}"
            raise Rejected(f"{answer.reason}; {hashes}")
        if not isinstance(answer, kv.Hello):
            raise FrameError(f"{type(answer).__name__} instead of HELLO")
        reason = mismatch(own, answer)
        if reason:
            rejection = self._identity.reject(reason, answer)
            channel.send(rejection)
            hashes = f"peer's compat hash {rejection.peer_compat_hash}, this pod's {rejection.own_compat_hash}"
            raise Rejected(f"{reason}; {hashes}")
        self._peer, self._token = answer, own.token
        for transfer in list(self._inbound.values()):
            self._ask(transfer, answer)
        return channel

    def _ask(self, transfer: Inbound, peer: kv.Hello) -> None:
        if transfer.peer.incarnation not in ("", peer.incarnation):
            self._fail(transfer, "peer_restarted")
        elif self._channel is not None:
            self._channel.send(transfer.request)

    def _fail(self, transfer: Inbound, reason: str, tell: str = "") -> None:
        self.forget(transfer, tell)
        self._receiver.failed(transfer, reason)

    async def _handle(self, channel: Channel, message: kv.Message) -> None:
        match message:
            case kv.Frame():
                await self._take_frame(channel, message)
            case kv.Ping():
                channel.send(kv.Pong(*self._identity.pulse()))
            case kv.Pong():
                pass
            case kv.Ready() | kv.Busy() | kv.Commit() | kv.Abort():
                if transfer := self._inbound.get((message.req, message.attempt)):
                    self._advance(channel, transfer, message)
            case kv.Reject(reason=reason):
                raise Rejected(reason)
            case _:
                raise FrameError(f"{type(message).__name__} is not for a decode pod")

    def _advance(self, channel: Channel, transfer: Inbound, message: kv.Ready | kv.Busy | kv.Commit | kv.Abort) -> None:
        match message:
            case kv.Ready(n_pages=n_pages) if n_pages > len(transfer.pages):
                self._fail(transfer, "protocol", tell=f"{n_pages} pages announced, {len(transfer.pages)} reserved")
            case kv.Ready(n_pages=n_pages) if not transfer.ready:
                transfer.ready = True
                transfer.pages = transfer.pages[:n_pages]
                channel.send(kv.Grant(*transfer.key, transfer.pages))
            case kv.Busy():
                self._stats.busy += 1
                self._fail(transfer, "busy")
            case kv.Abort():
                self._fail(transfer, "aborted")
            case kv.Commit():
                self._commit(channel, transfer, message)

    async def _take_frame(self, channel: Channel, frame: kv.Frame) -> None:
        """The header decides whether the payload is taken at all; the checksum whether the page is used."""
        check_shape(frame, self._identity.layout)
        self._stats.rx_bytes += frame.len
        self._stats.rx_frames += 1
        transfer = self._inbound.get((frame.req, frame.attempt))
        ordinal = None if transfer is None else transfer.place(frame, self._identity.incarnation)
        if transfer is None or ordinal is None:
            self._stats.frames_stale += 1
            await channel.discard()
            return
        payload = await channel.payload()
        if transfer is not self._inbound.get((frame.req, frame.attempt)):
            self._stats.frames_stale += 1  # given up while the payload came in
            return
        if checksum(payload) != frame.crc32c:
            self._stats.crc_errors += 1
            self._fail(transfer, "crc", tell=f"page {frame.page} arrived damaged")
            return
        transfer.count(frame, ordinal)
        place = (ordinal, frame.generation, frame.layer_first, frame.layer_end)
        self._receiver.hand_over(RemotePage(transfer.handle, *place, payload))
        await self._receiver.room(channel)

    def _commit(self, channel: Channel, transfer: Inbound, message: kv.Commit) -> None:
        problem = transfer.incomplete(message, self._identity.layout.layers, self._token)
        if problem:
            self._fail(transfer, "incomplete", tell=problem)
            return
        channel.send(kv.Ack(*transfer.key))
        self.forget(transfer)
        self._receiver.completed(transfer, message)


class Rejected(Exception):
    """The two pods must not exchange pages."""
