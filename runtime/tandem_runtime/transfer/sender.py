"""Prefill side of the kv port: takes PREFILL from decode pods, computes, pushes pages while it computes.

Pages are held until ACK or ABORT; a lost connection, a missed heartbeat or the request's deadline frees them too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.contracts.framing import MAX_HELLO_BYTES, FrameError
from tandem_runtime.engine.events import PrefillDone
from tandem_runtime.transfer.channel import Channel
from tandem_runtime.transfer.identity import KvIdentity, describe
from tandem_runtime.transfer.limits import HandoffLimits
from tandem_runtime.transfer.link_health import LinkHealth, LinkTable
from tandem_runtime.transfer.pace import LinkPace
from tandem_runtime.transfer.ring import RingError, open_ring
from tandem_runtime.transfer.sender_link import SenderLink
from tandem_runtime.transfer.wire import HELLO_SECONDS, TransferStats, mismatch

Observe = Callable[[kv.Prefill, float, PrefillDone], None]
"""Gets each request that is computed, and when it came (event loop's seconds)."""

log = logging.getLogger(__name__)


class KvSender:
    """Serves the kv port. `draining`: new work is answered with BUSY, work under way is finished. So is all work while
    the pod's role is decode: whoever asks knows an older incarnation of it."""

    def __init__(
        self, identity: KvIdentity, stats: TransferStats, pace: LinkPace | None = None, observe: Observe | None = None
    ) -> None:
        self.identity, self.stats, self.pace, self.observe = identity, stats, pace, observe
        self.limits: HandoffLimits = identity.limits
        self.links = LinkTable()
        """By name of the decode pod: its port changes with every connection."""
        self.draining = False
        self.on_change: Callable[[], None] = lambda: None
        """Called when a request is over: there is room again."""
        self.connections: set[SenderLink] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._now = asyncio.get_running_loop().time

    async def start(self, bind: str, port: int) -> int:
        """The port that it listens on (useful when 0 was asked for)."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Channel(self._opened), bind, port)
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def refuses(self) -> bool:
        """New work goes elsewhere."""
        return self.draining or not self.identity.computes_for_others

    @property
    def transfers(self) -> int:
        """Requests in work for decode pods."""
        return sum(len(c.jobs) for c in self.connections)

    def renew(self, identity: KvIdentity) -> None:
        """This pod is another one from now on: connections end, and with them what is left of their requests. Who
        connects again hears the new hello."""
        self.identity = identity
        self.links = LinkTable()
        for connection in list(self.connections):
            connection.part()
        self.connections.clear()

    def stop(self) -> None:
        """Closes the port and all connections."""
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.channel.close()

    def _opened(self, channel: Channel) -> None:
        serving = asyncio.create_task(self._serve(channel))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)

    async def _serve(self, channel: Channel) -> None:
        connection = SenderLink(self, channel)
        health: LinkHealth | None = None
        error = "closed"
        try:
            peer = await self._greet(channel)
            if peer is not None:
                health = self._connected(connection, channel, peer)
                await connection.run(peer)
        except FrameError as problem:
            self.stats.bad_frames += 1
            error = str(problem)
            log.warning("kv connection from %s closed: %s", channel.peer, problem)
        except (OSError, EOFError, TimeoutError) as problem:
            error = f"lost: {type(problem).__name__}"
            log.info("kv connection from %s ended: %s", channel.peer, type(problem).__name__)
        except asyncio.CancelledError:
            pass  # the event loop ends, and nobody waits for this task
        finally:
            self.connections.discard(connection)
            connection.end()
            if health is not None:
                health.connected = any(c.health is health for c in self.connections)
                health.fail(error, self._now())
            channel.close()

    def _connected(self, connection: SenderLink, channel: Channel, peer: kv.Hello) -> LinkHealth:
        self.connections.add(connection)
        table = self.links if self.identity.computes_for_others else LinkTable()  # who errs here is no link of ours
        health = connection.health = table.at(peer.pod, peer.pod, peer.role)
        health.connected, health.transport, health.last_seen = True, channel.transport, self._now()
        return health

    async def _greet(self, channel: Channel) -> kv.Hello | None:
        async with asyncio.timeout(HELLO_SECONDS):
            peer = await channel.receive(MAX_HELLO_BYTES)
        if not isinstance(peer, kv.Hello):
            raise FrameError(f"{type(peer).__name__} before HELLO")
        own = self.identity.hello
        reason = mismatch(own, peer)
        if reason:
            self.stats.rejects += 1
            rejection = self.identity.reject(reason, peer)
            if own.token == peer.token:  # a stranger's word for its name is worth nothing
                health = self.links.at(peer.pod, peer.pod, peer.role)
                health.rejects += 1
                health.fail(f"rejected: {describe(rejection)}", self._now())
            log.warning("pod %s at %s rejected: %s", peer.pod, channel.peer, describe(rejection))
            channel.send(rejection)
            return None
        channel.send(msgspec.structs.replace(own, ring_proof=self._share(channel, peer)))
        return peer

    def _share(self, channel: Channel, peer: kv.Hello) -> bytes:
        """The proof that both see the memory that D offers; empty when payloads have to go inline."""
        if peer.ring is None or self.identity.shared_memory is None:
            return b""
        try:
            ring = open_ring(self.identity.shared_memory, peer.ring)
        except RingError as error:
            log.info("payloads to %s go over TCP: %s", peer.pod, error)
            return b""
        channel.ring_out = ring
        return ring.proof
