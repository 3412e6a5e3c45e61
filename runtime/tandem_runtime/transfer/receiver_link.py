"""Decode side of one connection: asks a prefill pod, checks every frame before and after its payload is received.

The rules are in `inbound`; here are the connection, the clock, the test of the link and what is known of it.
"""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING, Final

import msgspec

from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.contracts.framing import MAX_HELLO_BYTES, FrameError
from tandem_runtime.engine.events import RemotePage
from tandem_runtime.transfer.channel import Channel
from tandem_runtime.transfer.identity import PREFILL_ROLES, describe
from tandem_runtime.transfer.inbound import Inbound, check_shape
from tandem_runtime.transfer.probe import LinkProbe
from tandem_runtime.transfer.ring import RingError, RingOffer
from tandem_runtime.transfer.steps import Completed, GivenUp, InboundStep, Tell
from tandem_runtime.transfer.wire import beat, checksum, frame_checksum, mismatch

if TYPE_CHECKING:
    from tandem_runtime.transfer.receiver import KvReceiver

log = logging.getLogger(__name__)

CONNECT_SECONDS: Final = 2.0
"""A pod that does not answer by then is gone or overloaded; another one is asked."""
WATCH_SECONDS: Final = 0.25
"""How often deadlines are looked at."""


class Rejected(Exception):
    """The two pods must not exchange pages."""


class NoPrefill(Exception):
    """Who answers computes no prompts for others: it has another role now."""


class ReceiverLink:
    """The connection to one prefill pod; opened by the first transfer, or to test it."""

    def __init__(self, receiver: KvReceiver, address: tuple[str, int]) -> None:
        self.address = address
        self.closed = False
        self.health = receiver.links.at(f"{address[0]}:{address[1]}")
        self.settled = asyncio.Event()
        """Tested, or closed."""
        self.peer_queue_tokens = 0
        self._receiver, self._identity, self._stats = receiver, receiver.identity, receiver.stats
        self._now = asyncio.get_running_loop().time
        self._inbound: dict[tuple[str, int], Inbound] = {}
        self._channel: Channel | None = None
        self._peer: kv.Hello | None = None
        self._probe = LinkProbe(self.health)
        """On the clock itself: an event loop's own is behind by a millisecond, a whole block."""
        self._token = ""
        """What both sides have said on this connection."""
        self._task = asyncio.create_task(self._run())

    @property
    def peer_name(self) -> str:
        """As it said."""
        return self._peer.pod if self._peer is not None else ""

    @property
    def peer_incarnation(self) -> str:
        """As it said."""
        return self._peer.incarnation if self._peer is not None else ""

    def able(self, revision: str) -> bool:
        """It may be asked for KV: it stands, is of this revision, and its test did not fail."""
        peer = self._peer
        stands = peer is not None and not self.closed
        return stands and peer is not None and peer.revision == revision and self.health.preflight != "failed"

    def add(self, attempt: Inbound) -> None:
        """Asks for the attempt's KV, as soon as the connection stands."""
        self._inbound[attempt.key] = attempt
        if self._peer is not None:
            self._ask(attempt, self._peer)

    def drop(self, attempt: Inbound, tell: str) -> None:
        """No more of this attempt; the peer hears why."""
        if self._inbound.pop(attempt.key, None) is not None:
            self._stats.aborts += 1
            for step in attempt.give_up("dropped", tell):
                if isinstance(step, Tell) and self._channel is not None:
                    self._channel.send(step.message)

    def close(self) -> None:
        """Ends the connection and every transfer on it."""
        self._task.cancel()

    async def _run(self) -> None:
        reason, words = "peer_lost", "closed"
        watch = asyncio.create_task(self._watch())
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                channel = await self._connect()
            heartbeat = asyncio.create_task(beat(channel, lambda: kv.Ping(*self._identity.pulse())))
            try:
                while True:
                    await self._handle(channel, await channel.receive())
            finally:
                heartbeat.cancel()
        except FrameError as error:
            self._stats.bad_frames += 1
            reason, words = "protocol", str(error)
            log.warning("kv connection to %s closed: %s", self.address, error)
        except Rejected as error:
            self._stats.rejects += 1
            self.health.rejects += 1
            reason, words = "rejected", f"rejected: {error}"
            log.error("pod at %s and this pod do not match: %s", self.address, error)
        except NoPrefill as error:
            reason, words = "wrong_role", str(error)
            log.info("no KV from %s: %s", self.address, error)
        except (OSError, EOFError, TimeoutError) as error:
            self._stats.peers_lost += 1
            words = f"lost: {type(error).__name__}"
            log.warning("prefill pod at %s lost: %s", self.address, type(error).__name__)
        finally:
            watch.cancel()
            self.closed = True
            self.health.connected = False
            self.health.fail(words, self._now())
            if self._channel is not None:
                self._channel.close()
            self._receiver.dropped(self)
            self.settled.set()
            for attempt in list(self._inbound.values()):
                self._do(attempt, attempt.give_up(reason))

    async def _connect(self) -> Channel:
        channel = self._channel = await Channel.connect(*self.address)
        offer = self._offer()
        own = self._identity.hello
        try:
            channel.send(own if offer is None else msgspec.structs.replace(own, ring=offer.message))
            answer = await channel.receive(MAX_HELLO_BYTES)
        finally:
            if offer is not None:
                offer.remove()
        if isinstance(answer, kv.Reject):
            hashes = f"own compat hash {answer.peer_compat_hash}, the peer's {answer.own_compat_hash}"
            raise Rejected(f"{answer.reason}; {hashes}")
        if not isinstance(answer, kv.Hello):
            raise FrameError(f"{type(answer).__name__} instead of HELLO")
        reason = mismatch(own, answer)
        if reason:
            rejection = self._identity.reject(reason, answer)
            channel.send(rejection)
            raise Rejected(describe(rejection))
        if answer.role not in PREFILL_ROLES:
            self.health.pod, self.health.role = answer.pod, answer.role
            itself = answer.incarnation == own.incarnation  # a name of all prefill pods may be behind the times
            raise NoPrefill("it is this pod itself" if itself else f"it is a {answer.role} pod now")
        self._choose_transport(channel, offer, answer)
        self._stand(channel, own.token, answer)
        return channel

    def _offer(self) -> RingOffer | None:
        folder = self._identity.shared_memory
        if folder is None:
            self.health.transport_note = "shared memory is off"
            return None
        try:
            return RingOffer(folder)
        except RingError as error:
            self.health.transport_note = str(error)
            return None

    def _choose_transport(self, channel: Channel, offer: RingOffer | None, answer: kv.Hello) -> None:
        """The ring, when the peer has read in it what we wrote; else inline."""
        if offer is not None and answer.ring_proof == offer.ring.proof:
            channel.ring_in = offer.ring
            self.health.transport_note = ""
        elif offer is not None:
            self.health.transport_note = "the peer does not see this pod's memory: another host or container"
        if self.health.transport != channel.transport:
            note = f" ({self.health.transport_note})" if self.health.transport_note else ""
            log.info("KV of %s at %s comes over %s%s", answer.pod, self.address, channel.transport, note)

    def _stand(self, channel: Channel, token: str, answer: kv.Hello) -> None:
        health = self._receiver.links.at(self.health.address, answer.pod, answer.role)
        health.connected, health.transport, health.last_seen = True, channel.transport, self._now()
        self._peer, self._token = answer, token
        for attempt in list(self._inbound.values()):
            self._ask(attempt, answer)

    def _ask(self, attempt: Inbound, peer: kv.Hello) -> None:
        if attempt.peer.incarnation not in ("", peer.incarnation):
            self._do(attempt, attempt.give_up("peer_restarted"))
        else:
            self._do(attempt, attempt.ask(self._now()))

    async def _watch(self) -> None:
        """Deadlines of the attempts and of the test; also while the connection is not there yet."""
        while True:
            now = self._now()
            for attempt in list(self._inbound.values()):
                self._do(attempt, attempt.expire(now))
            if self._peer is not None and self._channel is not None and "probe" in self._peer.features:
                self._test(self._channel, self._probe.due(monotonic(), busy=bool(self._inbound)))
            await asyncio.sleep(WATCH_SECONDS)

    def _test(self, channel: Channel, probe: kv.Probe | None) -> None:
        if probe is not None:
            channel.send(probe)
        if self.health.preflight:
            self.settled.set()

    async def _handle(self, channel: Channel, message: kv.Message) -> None:
        self.health.last_seen = self._now()
        match message:
            case kv.Frame():
                await self._take_frame(channel, message)
            case kv.Block() if self._probe.wants(message):
                payload = await channel.payload()
                intact = checksum(payload) == message.crc32c
                self._test(channel, self._probe.take(message, intact, monotonic()))
                self._stats.probes_failed += self.health.preflight == "failed"
            case kv.Block():
                pass  # too late; it is thrown away without being kept
            case kv.Ping() | kv.Pong():
                self.peer_queue_tokens = message.queue_tokens
                if isinstance(message, kv.Ping):
                    channel.send(kv.Pong(*self._identity.pulse()))
            case kv.Ready() | kv.Busy() | kv.Commit() | kv.Abort():
                self._stats.busy += isinstance(message, kv.Busy)
                if attempt := self._inbound.get((message.req, message.attempt)):
                    self._do(attempt, attempt.hear(message, self._token, self._now()))
                elif isinstance(message, kv.Ready | kv.Commit):
                    channel.send(kv.Abort(message.req, message.attempt, "not wanted"))  # it must not hold pages for us
            case kv.Reject(reason=reason):
                raise Rejected(reason)
            case _:
                raise FrameError(f"{type(message).__name__} is not for a decode pod")

    def _do(self, attempt: Inbound, steps: list[InboundStep]) -> None:
        for step in steps:
            match step:
                case Tell(message):
                    self._stats.aborts += isinstance(message, kv.Abort)
                    self._stats.nacks += isinstance(message, kv.Nack)
                    if self._channel is not None:
                        self._channel.send(message)
                case Completed(commit):
                    self._inbound.pop(attempt.key, None)
                    self._receiver.completed(attempt, commit)
                case GivenUp(reason):
                    self._inbound.pop(attempt.key, None)
                    self._stats.expired += reason in ("no_answer", "stalled")
                    if reason != "peer_lost":
                        self.health.fail(f"a hand-off failed: {reason}", self._now())
                    self._receiver.gave_up(attempt, reason)

    async def _take_frame(self, channel: Channel, frame: kv.Frame) -> None:
        """The header decides whether the payload is taken at all; the checksum whether the page is used."""
        check_shape(frame, self._identity.layout)
        self._stats.rx_bytes += frame.len
        self._stats.rx_frames += 1
        attempt = self._inbound.get((frame.req, frame.attempt))
        ordinal = None if attempt is None else attempt.place(frame, self._identity.incarnation)
        if attempt is None or ordinal is None:
            self._stats.frames_stale += 1
            if attempt is not None:
                self._do(attempt, attempt.take(frame, None, False, self._now()))
            await channel.discard()
            return
        payload = await channel.payload()
        if attempt.ended:
            self._stats.frames_stale += 1  # given up while the payload came in
            return
        intact = frame_checksum(frame, payload) == frame.crc32c
        self._stats.crc_errors += not intact
        self._do(attempt, attempt.take(frame, ordinal, intact, self._now()))
        if intact:
            place = (ordinal, frame.generation, frame.layer_first, frame.layer_end)
            self._receiver.hand_over(RemotePage(attempt.handle, *place, payload))
            await self._receiver.room(channel)
