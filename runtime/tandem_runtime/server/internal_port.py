"""The internal port: routers' connections, their requests, and the pod's state and credits to each of them."""

from __future__ import annotations

import asyncio
import hmac
import logging
from contextlib import suppress

import msgspec

from tandem_runtime.contracts import pod_protocol as wire
from tandem_runtime.contracts.framing import MAX_CONTROL_BYTES, MAX_HELLO_BYTES, PREFIX, FrameError, check_lengths, pack
from tandem_runtime.contracts.pod_protocol import HEARTBEAT_SECONDS, MISSED_HEARTBEATS, Reason
from tandem_runtime.server.credits import Backlog, CreditLedger
from tandem_runtime.server.pod import Pod
from tandem_runtime.server.session import Session
from tandem_runtime.transfer.channel import set_no_delay
from tandem_runtime.transfer.wire import HELLO_SECONDS

log = logging.getLogger(__name__)

READ_LIMIT_BYTES = 1 << 20
STATE_SECONDS = 0.5
CHANGE_SECONDS = 0.02
"""Shortest time between two states: many requests that end together are one change."""
CLOCK_SECONDS = 0.002
"""A timer may fire that early by the clock that it is compared with."""
STEP_DELTAS = 1024
"""Of one frame: far below its limit in bytes, and the router does nothing else while it handles them."""
UNREAD_BYTES = 64 << 20
"""A router that leaves that much unread is given up."""


class InternalPort:
    """Serves the internal port of one pod."""

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        self.ledger = CreditLedger()
        self.bad_frames = 0
        self.connections: list[RouterConnection] = []
        self._told = pod.coefficients
        self._server: asyncio.Server | None = None
        self._ticker: asyncio.Task[None] | None = None

    async def start(self, bind: str, port: int) -> int:
        """The port that it listens on."""
        self._server = await asyncio.start_server(self._serve, bind, port, limit=READ_LIMIT_BYTES)
        self._ticker = asyncio.create_task(self._tell())
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Sends what is queued, then closes."""
        if self._ticker is not None:
            self._ticker.cancel()
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.flush()
            connection.writer.close()

    async def _tell(self) -> None:
        while True:
            pause_seconds = min(STATE_SECONDS, self.ledger.wait_seconds(self.pod.clock()) + CLOCK_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_seconds):
                    await self.pod.changed.wait()
            self.pod.changed.clear()
            try:
                self.broadcast()
            except Exception:  # routers that hear nothing would never send a request again
                log.exception("telling routers the state failed; trying again")
            await asyncio.sleep(CHANGE_SECONDS)

    def part(self) -> None:
        """The pod is another one: routers hear all that the old one had to say, and connect again to the new one."""
        connections, self.connections = self.connections, []
        for connection in connections:
            self.ledger.leave(id(connection))
            connection.part()

    def broadcast(self) -> None:
        """State and credits to every router, and what steps take now where that has changed."""
        if self.connections:
            coefficients = self.pod.coefficients
            if coefficients is not self._told:
                self._told = coefficients
                for connection in self.connections:
                    connection.send(self.pod.hello())
            routers = len({connection.router for connection in self.connections})
            state = msgspec.structs.replace(self.pod.state(), routers=routers)
            now = self.pod.clock()
            self.ledger.share(self.pod.room(), now)
            for connection in self.connections:
                connection.send(state)
                connection.send(connection.credits(now))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = RouterConnection(self.pod, self.ledger, reader, writer)
        peer = writer.get_extra_info("peername")
        try:
            if await connection.greet():
                self.connections.append(connection)
                self.ledger.join(id(connection), self.pod.clock())
                self.broadcast()
                await connection.run()
        except (FrameError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self.bad_frames += 1
            log.warning("router connection from %s closed: %s", peer, error)
        except (OSError, EOFError, TimeoutError) as error:
            log.info("router connection from %s ended: %s", peer, type(error).__name__)
        except asyncio.CancelledError:
            pass  # the event loop ends, and nobody waits for this task
        finally:
            if connection in self.connections:
                self.connections.remove(connection)
            self.ledger.leave(id(connection))
            self.pod.changed.set()
            connection.end()


class RouterConnection:
    """One router. Its requests end with it."""

    def __init__(
        self, pod: Pod, ledger: CreditLedger, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.writer = writer
        self.router = ""
        """Its incarnation, once it has said so."""
        self._pod, self._ledger, self._reader = pod, ledger, reader
        self._sessions: dict[str, Session] = {}
        self._outgoing: list[bytes] = []
        self._deltas: list[wire.Delta] = []
        self._heard = True
        self._parted = False
        set_no_delay(writer)

    def send(self, message: wire.FromPod | wire.Delta) -> None:
        """Queued; all messages of one turn of the event loop leave in one write, and its deltas in few frames."""
        if not self._outgoing and not self._deltas:
            asyncio.get_running_loop().call_soon(self.flush)
        if isinstance(message, wire.Delta):
            self._deltas.append(message)
            if len(self._deltas) < STEP_DELTAS:
                return
        self._pack_deltas()
        if not isinstance(message, wire.Delta):
            self._outgoing.append(pack(wire.encode(message)))

    def _pack_deltas(self) -> None:
        if self._deltas:
            self._outgoing.append(pack(wire.encode(wire.Step(self._deltas))))
            self._deltas = []

    def flush(self) -> None:
        """Writes what is queued."""
        self._pack_deltas()
        outgoing, self._outgoing = self._outgoing, []
        if outgoing and not self.writer.is_closing():
            self.writer.write(b"".join(outgoing))
            if self.writer.transport.get_write_buffer_size() > UNREAD_BYTES:
                self.writer.transport.abort()

    async def greet(self) -> bool:
        """Whether this router may talk to this pod."""
        async with asyncio.timeout(HELLO_SECONDS):
            first = await self._receive(MAX_HELLO_BYTES)
        if not isinstance(first, wire.RouterHello):
            raise FrameError(f"{type(first).__name__} before the router's hello")
        reason = self._refusal(first)
        if reason:
            log.warning("router %s refused: %s", first.router_id, reason)
            self.send(wire.Refused(reason))
            self.flush()
            return False
        self.router = first.incarnation
        self.send(self._pod.hello())
        return True

    def _refusal(self, hello: wire.RouterHello) -> str:
        identity = self._pod.identity
        if not hmac.compare_digest(hello.token.encode(), identity.token().encode()):
            return "wrong token: router and pod must belong to the same deployment"
        if hello.version != wire.VERSION:
            return f"version {hello.version} of the protocol, this pod speaks {wire.VERSION}"
        if hello.revision != identity.revision:
            return f"revision {hello.revision!r}, this pod is of {identity.revision!r}"
        return ""

    async def run(self) -> None:
        """Until the connection ends, or the router was silent for three heartbeats."""
        watch = asyncio.create_task(self._watch())
        try:
            while True:
                message = await self._receive()
                if self._parted:
                    break  # it was meant for who this was
                self._handle(message)
        finally:
            watch.cancel()

    def part(self) -> None:
        """Ends it from our side; what was queued is still sent."""
        self._parted = True
        self.flush()
        self.writer.close()

    async def _watch(self) -> None:
        silent = 0
        while silent < MISSED_HEARTBEATS:
            self._heard = False
            await asyncio.sleep(HEARTBEAT_SECONDS)
            silent = 0 if self._heard else silent + 1
        log.warning("a router was silent for %.1f s", HEARTBEAT_SECONDS * MISSED_HEARTBEATS)
        self.writer.transport.abort()

    async def _receive(self, max_control_bytes: int = MAX_CONTROL_BYTES) -> wire.FromRouter:
        control_bytes, payload_bytes = PREFIX.unpack(await self._reader.readexactly(PREFIX.size))
        check_lengths(control_bytes, payload_bytes, max_control_bytes)
        if payload_bytes:
            raise FrameError(f"payload of {payload_bytes} bytes; the internal port takes none")
        control = await self._reader.readexactly(control_bytes)
        self._heard = True
        self._ledger.heard(id(self), self._pod.clock())
        message: wire.FromRouter = wire.decode_from_router(control)
        return message

    def _handle(self, message: wire.FromRouter) -> None:
        match message:
            case wire.Submit():
                self._submit(message)
            case wire.Cancel(id=request_id, attempt=attempt):
                session = self._sessions.get(request_id)
                if session is not None and session.submit.attempt == attempt:
                    session.cancel()
            case wire.Ping(requests=requests, tokens=tokens, next_tokens=next_tokens):
                backlog = Backlog(requests, tokens, next_tokens)
                if self._ledger.report(id(self), backlog, self._pod.clock()):
                    self._pod.changed.set()
                self.send(wire.Pong(self._pod.identity.incarnation))
            case wire.RouterHello():
                raise FrameError("a second hello")

    def credits(self, now: float) -> wire.Credits:
        """As the ledger has shared them out."""
        lease, ledger = self._ledger.leases[id(self)], self._ledger
        told, incarnation = lease.told, self._pod.identity.incarnation
        ttl_ms = int(1000 * ledger.ttl_seconds(id(self), now))
        return wire.Credits(incarnation, **told, ttl_ms=ttl_ms, received=lease.received)

    def _has_credit(self, submit: wire.Submit) -> bool:
        """What the pod could not take even if it were empty, it refuses better itself: with the reason."""
        pod, prompt_tokens = self._pod, 0 if submit.prefill_peer is not None else len(submit.prompt_ids)
        state, need_tokens = pod.state(), submit.kv_tokens()
        if not (pod.ready and pod.serves_requests) or need_tokens > state.kv_total_tokens:
            return True
        return self._ledger.use(id(self), need_tokens, prompt_tokens, pod.room(), pod.clock())

    def _submit(self, submit: wire.Submit) -> None:
        self._ledger.arrived(id(self))
        running = self._sessions.get(submit.id)
        if running is not None and submit.attempt <= running.submit.attempt:
            text = f"request {submit.id!r} is in work with attempt {running.submit.attempt}"
            self.send(wire.Failed(submit.id, submit.attempt, Reason.DUPLICATE.value, text, retryable=False))
            return
        if running is not None:
            running.cancel()
        if not self._has_credit(submit):
            self._pod.turn_away(Reason.OVERLOADED)
            text = f"pod {self._pod.identity.pod} has no room for it, or other routers have the credit"
            self.send(wire.Failed(submit.id, submit.attempt, Reason.OVERLOADED.value, text, retryable=True))
            return
        session = self._pod.submit(submit, self._reply)
        if session is not None and not session.ended:
            self._sessions[submit.id] = session

    def _reply(self, message: wire.Delta | wire.Failed) -> None:
        self.send(message)
        if isinstance(message, wire.Failed) or message.finish_reason is not None:
            session = self._sessions.get(message.id)
            if session is not None and session.submit.attempt == message.attempt:
                del self._sessions[message.id]

    def end(self) -> None:
        """Drops the router's requests and closes."""
        for session in list(self._sessions.values()):
            session.drop()
        self._sessions.clear()
        self.writer.close()
