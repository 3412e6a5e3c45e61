"""Prefill side of the kv port: takes PREFILL from decode pods, computes, pushes pages while it computes.

Pages are held until ACK or ABORT; a lost connection, a missed heartbeat or the request's deadline frees them too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.contracts.framing import MAX_HELLO_BYTES, FrameError
from tandem_runtime.transfer.identity import KvIdentity
from tandem_runtime.transfer.pace import LinkPace
from tandem_runtime.transfer.sender_link import SenderLink
from tandem_runtime.transfer.wire import (
    HELLO_SECONDS,
    READ_LIMIT_BYTES,
    Channel,
    TransferStats,
    mismatch,
)

log = logging.getLogger(__name__)


class KvSender:
    """Serves the kv port. `draining`: new work is answered with BUSY, work under way is finished."""

    def __init__(self, identity: KvIdentity, stats: TransferStats, pace: LinkPace | None = None) -> None:
        self.identity, self.stats, self.pace = identity, stats, pace
        self.draining = False
        self.on_change: Callable[[], None] = lambda: None
        """Called when a request is over: there is room again."""
        self.connections: set[SenderLink] = set()
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
        connection = SenderLink(self, channel)
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
        peer = await asyncio.wait_for(channel.receive(MAX_HELLO_BYTES), HELLO_SECONDS)
        if not isinstance(peer, kv.Hello):
            raise FrameError(f"{type(peer).__name__} before HELLO")
        own = self.identity.hello
        reason = mismatch(own, peer)
        if reason:
            self.stats.rejects += 1
            log.warning("pod %s at %s rejected: %s", peer.pod, channel.peer, reason)
            channel.send(self.identity.reject(reason, peer))
            return None
        channel.send(own)
        return peer
