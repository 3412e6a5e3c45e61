"""One persistent, multiplexed connection to one pod: hello, heartbeat, reconnect with backoff."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from tandem_runtime.contracts import pod_protocol as wire
from tandem_runtime.contracts.framing import FrameError, pack
from tandem_runtime.policy.pods import PodSnapshot
from tandem_runtime.router.endpoints import Address
from tandem_runtime.router.frames import FrameParser
from tandem_runtime.router.lanes import LaneLibrary, Lanes
from tandem_runtime.router.lease import SendLease
from tandem_runtime.router.prefilling import Prefilling
from tandem_runtime.router.settings import LinkSettings

if TYPE_CHECKING:
    from tandem_runtime.router.flight import Flight

log = logging.getLogger(__name__)


class LinkEvents(Protocol):
    """Who gets to know; called on the event loop."""

    def link_changed(self, link: PodLink) -> None:
        """Hello, state or credits arrived."""

    def link_lost(self, link: PodLink, reason: str) -> None:
        """The pod is gone; `link.flights` still holds what ran there."""

    def step_arrived(self, link: PodLink, deltas: Sequence[wire.Delta]) -> None:
        """New tokens of many requests."""

    def failure_arrived(self, link: PodLink, failed: wire.Failed) -> None:
        """A request ended without result."""

    def accepts(self, link: PodLink, hello: wire.PodHello) -> str:
        """Why this pod is not wanted; empty when it is."""


class PodLink:
    """Lives as long as the address is listed, and after that as long as its connection."""

    def __init__(
        self,
        address: Address,
        hello: Callable[[], wire.RouterHello],
        settings: LinkSettings,
        events: LinkEvents,
        jitter: Callable[[], float] = random.random,
        lanes: LaneLibrary | None = None,
    ) -> None:
        self.address = address
        self.listed = True
        """False: not reconnected once the connection ends."""
        self.hello: wire.PodHello | None = None
        self.state: wire.PodState | None = None
        self.flights: dict[str, Flight] = {}
        """Requests that this pod decodes for us."""
        self.lanes = Lanes(lanes) if lanes is not None else None
        """None: Python writes every chunk."""
        self.prefilling = Prefilling()
        self.problem = "not connected yet"
        self.known_as = ""
        """Incarnation under which the choice of pods knows it."""
        self._own_hello = hello
        self._settings = settings
        self._events = events
        self._jitter = jitter
        self._connection: PodConnection | None = None
        self._kv_sent_tokens = 0
        self._state_at = 0.0
        self.lease = SendLease()
        self.ping = wire.Ping()
        """What heartbeats say."""

    async def run(self) -> None:
        """Connects again and again, until cancelled or no longer listed."""
        backoff_seconds = self._settings.first_backoff_seconds
        while self.listed:
            try:
                reason, refused = await self._connect_once()
            except Exception as error:  # of an address that nobody can connect to, say: the others must not suffer
                log.exception("the connection to %s:%d failed", *self.address)
                reason, refused = f"{type(error).__name__}: {error}", True
            if self.hello is not None:
                backoff_seconds = self._settings.first_backoff_seconds
            if reason != self.problem or self.hello is not None:
                log.info("pod %s at %s:%d: %s", self.name(), *self.address, reason)
            self._lose(reason)
            pause = self._settings.refused_backoff_seconds if refused else backoff_seconds
            await asyncio.sleep(pause * (0.5 + self._jitter() / 2))
            backoff_seconds = min(2 * backoff_seconds, self._settings.max_backoff_seconds)

    def name(self) -> str:
        """The pod's name once it said so, else its address."""
        return self.hello.pod if self.hello else f"{self.address.host}:{self.address.port}"

    def prefill_peer(self) -> wire.PrefillPeer:
        """Where a decode pod finds this prefill pod: the address that it says of itself."""
        assert self.hello is not None
        return wire.PrefillPeer(
            self.hello.pod, self.hello.address or self.address.host, self.hello.kv_port, self.hello.incarnation
        )

    def send(self, message: wire.FromRouter) -> None:
        """To a lost pod: nothing happens, link_lost tells."""
        if self._connection is not None:
            self._connection.send(message)

    def dispatched(self, kv_tokens: int) -> None:
        """Counts a request that the pod's next state will include."""
        self._kv_sent_tokens += kv_tokens
        self.lease.sent(kv_tokens)

    def snapshot(self, now: float) -> PodSnapshot | None:
        """None while the pod has not introduced itself."""
        if self.hello is None or self.state is None:
            return None
        coefficients = self.hello.coefficients
        busy_until = now + self.prefilling.left_seconds(now)
        if coefficients is not None and self.state.waiting_tokens > self.prefilling.tokens:  # other routers' too
            behind_seconds = coefficients.prefill_seconds(self.state.waiting_tokens - self.prefilling.tokens)
            busy_until += max(0.0, self._state_at + behind_seconds - now)
        return PodSnapshot(
            pod=self.hello.pod,
            role=self.hello.role,
            revision=self.hello.revision,
            incarnation=self.hello.incarnation,
            ready=self.state.ready,
            draining=self.state.draining,
            running=max(self.state.running + self.state.waiting, len(self.flights)),
            waiting_tokens=max(self.state.waiting_tokens, self.prefilling.tokens),
            kv_used_tokens=self.state.kv_used_tokens + self._kv_sent_tokens,
            kv_total_tokens=self.state.kv_total_tokens,
            slots=self.lease.slots(now),
            # Prefill pods get their work from decode pods, and say Busy themselves.
            kv_credit_tokens=None if self.hello.role == "prefill" else self.lease.kv_tokens(now),
            busy_until=busy_until if coefficients is not None else None,
            max_sequences=self.hello.max_sequences,
            step_tokens=self.hello.step_tokens,
            coefficients=coefficients,
        )

    async def _connect_once(self) -> tuple[str, bool]:
        """Returns why the connection ended, and whether the pod refused us."""
        loop = asyncio.get_running_loop()
        connection = PodConnection(self._receive)
        try:
            async with asyncio.timeout(self._settings.connect_timeout_seconds):
                await loop.create_connection(lambda: connection, self.address.host, self.address.port)
                connection.send(self._own_hello())
                first = await connection.first
        except TimeoutError:
            connection.close()
            return f"no answer within {self._settings.connect_timeout_seconds:g} s", False
        except (OSError, ConnectionError) as error:
            return f"cannot connect: {error}", False
        except asyncio.CancelledError:
            connection.close()
            raise
        try:
            if isinstance(first, wire.Refused):
                return f"refused this router: {first.reason}", True
            if not isinstance(first, wire.PodHello):
                return f"said {type(first).__name__} instead of hello", True
            if unwanted := self._events.accepts(self, first):
                return unwanted, True
            self.hello, self._connection = first, connection
            self.problem = ""
            log.info("pod %s (%s) connected at %s:%d", first.pod, first.role, *self.address)
            self._events.link_changed(self)
            return await self._watch(connection), False
        finally:
            connection.close()

    async def _watch(self, connection: PodConnection) -> str:
        """Sends heartbeats until the connection ends. Counts checks, not time: a pause of our own is one check."""
        checks = self._settings.checks_per_heartbeat
        silent = tick = 0
        while True:
            closed, _ = await asyncio.wait([connection.closed], timeout=self._settings.heartbeat_seconds / checks)
            if closed:
                return connection.closed.result()
            silent = 0 if connection.heard else silent + 1
            connection.heard = False
            if silent >= checks * self._settings.missed_heartbeats:
                seconds = self._settings.heartbeat_seconds * self._settings.missed_heartbeats
                return f"silent for {seconds:.1f} s"
            tick += 1
            if tick % checks == 0:
                connection.send(self.ping)

    def _receive(self, control: bytes) -> None:
        """Raises what decoding raises."""
        left = self.lanes.pass_on(control) if self.lanes is not None else None
        if left is not None and not left:
            return
        message = wire.decode_from_pod(control)
        if isinstance(message, wire.Step):
            deltas = message.deltas if left is None else [message.deltas[place] for place in left]
            self._events.step_arrived(self, deltas)
        elif isinstance(message, wire.Failed):
            self._events.failure_arrived(self, message)
        elif isinstance(message, wire.PodState):
            self.state = message
            self._state_at = time.monotonic()
            self._kv_sent_tokens = 0
            self._events.link_changed(self)
        elif isinstance(message, wire.Credits):
            self.lease.take(message, time.monotonic())
            self._events.link_changed(self)
        elif isinstance(message, wire.PodHello):
            if self.hello is not None and self.hello.incarnation != message.incarnation:  # with what was sent to whom?
                raise FrameError(f"incarnation {message.incarnation} on a connection to {self.hello.incarnation}")
            self.hello = message
            self._events.link_changed(self)

    def _lose(self, reason: str) -> None:
        self.problem = reason
        was_up = self.hello is not None
        if was_up:
            self._events.link_lost(self, reason)
        self.hello = self.state = self._connection = None
        self.flights = {}
        self.prefilling.clear()
        self._kv_sent_tokens = 0
        self.lease = SendLease()
        if was_up:
            self._events.link_changed(self)


class PodConnection(asyncio.Protocol):
    """The socket: frames in and out. The first message goes to `first`, all later ones to `receive`."""

    def __init__(self, receive: Callable[[bytes], None]) -> None:
        loop = asyncio.get_running_loop()
        self.first: asyncio.Future[wire.FromPod] = loop.create_future()
        self.closed: asyncio.Future[str] = loop.create_future()
        self.heard = True
        self._receive = receive
        self._parser = FrameParser()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self.heard = True
        try:
            for control in self._parser.feed(data):
                if self.first.done():
                    self._receive(control)
                else:
                    self.first.set_result(wire.decode_from_pod(control))
        except (FrameError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._end(f"sent what is not this protocol: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the loop."""
        self._end(f"connection lost: {error}" if error else "connection closed by the pod")

    def send(self, message: wire.FromRouter) -> None:
        """Never blocks; a pod that does not read is found by its silence."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(pack(wire.encode(message)))

    def close(self) -> None:
        """Idempotent; what was not sent yet is dropped."""
        self._end("closed by the router")

    def _end(self, reason: str) -> None:
        if not self.closed.done():
            self.closed.set_result(reason)
        if not self.first.done():
            self.first.set_exception(ConnectionError(reason))
            self.first.exception()  # read here: nobody may be waiting any more
        if self._transport is not None:
            self._transport.abort()
