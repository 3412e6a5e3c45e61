"""An engine pod without its ports: identity, engine, hand-off in both directions, sessions, state, drain."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass, replace

from tandem_runtime.contracts.coefficients import Coefficients
from tandem_runtime.contracts.kv_protocol import Prefill
from tandem_runtime.contracts.pod_protocol import VERSION, Delta, Failed, PodHello, PodState, Reason, Submit
from tandem_runtime.contracts.token_file import TokenSource
from tandem_runtime.engine.client import EngineClient
from tandem_runtime.engine.events import PrefillDone
from tandem_runtime.server.course import RequestMetrics
from tandem_runtime.server.credits import Room
from tandem_runtime.server.drain import DrainReport, drain
from tandem_runtime.server.flip import Flip
from tandem_runtime.server.request_log import log_prefill
from tandem_runtime.server.session import Reply, Session, complaint
from tandem_runtime.server.since import NOTHING_YET, Since
from tandem_runtime.telemetry.traces import OFF, Tracer
from tandem_runtime.text.tokenizer import Tokenizer
from tandem_runtime.transfer.identity import KvIdentity, KvSettings, make_identity
from tandem_runtime.transfer.pace import LinkPace
from tandem_runtime.transfer.preflight import Preflight
from tandem_runtime.transfer.receiver import KvReceiver
from tandem_runtime.transfer.sender import KvSender
from tandem_runtime.transfer.wire import TransferStats

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """As told on the command line; `incarnation` is drawn anew by every process, and with every role it takes."""

    pod: str
    role: str
    revision: str
    incarnation: str
    address: str
    token: TokenSource
    model_name: str = ""
    coefficients: Coefficients | None = None
    """What an emulated pod takes its time from; of a real one nobody knows them yet."""


class Pod:
    """After `EngineClient.load`. `changed` is set when routers should hear of a new state."""

    def __init__(
        self,
        identity: PodIdentity,
        engine: EngineClient,
        tokenizer: Tokenizer,
        pace: LinkPace | None = None,
        kv_settings: KvSettings = KvSettings(),  # noqa: B008 (frozen)
        tracer: Tracer = OFF,
    ) -> None:
        self.identity, self.engine, self.tokenizer = identity, engine, tokenizer
        self.clock = asyncio.get_running_loop().time
        self.sent, self.received = TransferStats(), TransferStats()
        self._kv_settings = kv_settings
        kv_identity = self._kv_identity()
        self.requests = RequestMetrics(identity.model_name, identity.pod, tracer)
        self.sender = KvSender(kv_identity, self.sent, pace, self._observe_handoff)
        self.receiver = KvReceiver(kv_identity, self.received)
        self.preflight = self._make_preflight()
        engine.prefix_key = lambda: identity.token().encode()
        self.kv_port = 0
        self.draining = False
        self.drained: DrainReport | None = None
        """From SIGTERM on."""
        self.becoming = ""
        """The role that it takes when it is empty; empty when it takes none."""
        self.flip: Flip | None = None
        """How it came to the role it has."""
        self.since = NOTHING_YET
        self.promised_tokens = 0
        """KV of requests that were taken and that the engine has not told of yet."""
        self.cancelled = 0
        self.failures: Counter[str] = Counter()
        self.touched: list[Session] = []
        self.changed = asyncio.Event()
        self._sessions: set[Session] = set()
        self.sender.on_change = self.changed.set
        engine.after_batch.append(self._flush)

    @property
    def ready(self) -> bool:
        """It can serve now."""
        return not self.draining and not self.engine.engine.ended.done() and self.preflight.settled

    @property
    def serves_requests(self) -> bool:
        """Prefill pods compute for other pods only."""
        return self.identity.role in ("decode", "both")

    @property
    def in_flight(self) -> int:
        """Requests of routers and of decode pods that have not ended."""
        return len(self._sessions) + self.sender.transfers

    @property
    def coefficients(self) -> Coefficients | None:
        """What an emulated pod takes its time from, else what its own steps have taught it."""
        return self.identity.coefficients or self.engine.engine.state.coefficients

    def sessions(self) -> list[Session]:
        """Those that have not ended."""
        return list(self._sessions)

    def hello(self) -> PodHello:
        """Who this is."""
        identity = self.identity
        return PodHello(
            version=VERSION,
            pod=identity.pod,
            role=identity.role,
            revision=identity.revision,
            incarnation=identity.incarnation,
            address=identity.address,
            kv_port=self.kv_port,
            model_name=identity.model_name,
            max_context_tokens=self.engine.context_tokens,
            compat_hash=self.engine.capacity.compat_hash,
            max_sequences=self.engine.capacity.max_sequences,
            step_tokens=self.engine.engine.settings.step_tokens,
            coefficients=self.coefficients,
            keeps_prefixes=self.engine.engine.scheduler.keeps_prefixes,
            flipped_from=self.flip.was if self.flip else "",
            flip_seconds=self.flip.seconds_at(self.clock()) if self.flip else 0.0,
        )

    def state(self) -> PodState:
        """What routers choose by."""
        state, page_tokens = self.engine.engine.state, self.engine.capacity.page_tokens
        links = [*self.receiver.links.connected, *self.sender.links.connected]
        return PodState(
            incarnation=self.identity.incarnation,
            ready=self.ready,
            draining=self.draining,
            running=state.running,
            waiting=state.waiting,
            waiting_tokens=state.waiting_tokens,
            kv_used_tokens=state.used_pages * page_tokens,
            kv_total_tokens=state.total_pages * page_tokens,
            kv_link=",".join(sorted({link.transport for link in links})),
            becoming=self.becoming,
        )

    def room(self) -> Room:
        """What it can still take; nothing while it drains."""
        if not self.ready:
            return Room(0, 0, 0)
        state, capacity = self.engine.engine.state, self.engine.capacity
        free_tokens = (state.total_pages - state.used_pages) * capacity.page_tokens - self.promised_tokens
        queue_tokens = self.engine.engine.settings.waiting_tokens - state.waiting_tokens
        return Room(capacity.max_sequences - self.engine.open_requests, free_tokens, queue_tokens)

    def submit(self, submit: Submit, reply: Reply, *, movable: bool = True) -> Session | None:
        """Starts a request; None when it was refused (the reply says why). Not `movable`: nobody can take it over."""
        refusal = self._refusal(submit)
        if refusal is not None:
            reason, message, retryable = refusal
            self.failures[reason] += 1
            reply(Failed(submit.id, submit.attempt, reason.value, message, retryable))
            return None
        try:
            session = Session(self, submit, self._count_failures(reply))
        except Exception as error:  # it must not cost the other requests of the router their connection
            log.exception("request %s cannot be started", submit.id)
            self._count_failures(reply)(
                Failed(submit.id, submit.attempt, Reason.ENGINE_ERROR, type(error).__name__, retryable=True)
            )
            return None
        session.movable = movable
        self._sessions.add(session)
        session.start()
        return session

    def turn_away(self, reason: Reason) -> None:
        """Counts a request that its router should not have sent."""
        self.failures[reason] += 1

    def _refusal(self, submit: Submit) -> tuple[Reason, str, bool] | None:
        if self.draining:
            what = f"becomes a {self.becoming} pod" if self.becoming else "is shutting down"
            return Reason.DRAINING, f"pod {self.identity.pod} {what}", True
        if not self.serves_requests:
            return Reason.WRONG_ROLE, f"pod {self.identity.pod} is a {self.identity.role} pod", True
        problem = complaint(submit, self.engine.capacity.vocab_size)
        return (Reason.INVALID, problem, False) if problem else None

    def _count_failures(self, reply: Reply) -> Reply:
        def counted(message: Delta | Failed) -> None:
            if isinstance(message, Failed):
                self.failures[message.reason] += 1
            reply(message)

        return counted

    def session_ended(self, session: Session) -> None:
        """Called by the session."""
        self._sessions.discard(session)
        self.changed.set()

    def _observe_handoff(self, request: Prefill, came: float, done: PrefillDone) -> None:
        course = self.requests.begin(request.traceparent, request.prompt_tokens or len(request.tokens), came)
        now = self.clock()
        self.requests.prefilled(course, done.queued_seconds, now)
        log_prefill(request, done.queued_seconds, came, now)

    def _flush(self) -> None:
        touched, self.touched = self.touched, []
        for session in touched:
            session.flush()

    async def drain(self, timeout_seconds: float) -> DrainReport:
        """Takes nothing new and waits for what runs; hands back what is left when the time is up."""
        self.becoming = ""
        self.drained = DrainReport(self.in_flight)
        return await drain(self, self.drained, timeout_seconds, "shut down")

    def take_role(self, flip: Flip) -> None:
        """At once, when drained: it is another pod from now on, with this one's weights and pages. What is left of the
        old one's requests and KV links ends."""
        self.identity = replace(self.identity, role=flip.role, incarnation=flip.incarnation)
        self.flip = flip
        self.preflight.stop()
        kv_identity = self._kv_identity()
        self.sender.renew(kv_identity)
        self.receiver.renew(kv_identity)
        self.preflight = self._make_preflight()
        self.since = Since.now(self.engine.engine, self.sent, self.received)
        self.becoming = ""
        self.draining = self.sender.draining = False
        self.preflight.start()
        self.changed.set()

    def _kv_identity(self) -> KvIdentity:
        identity = self.identity
        who = (identity.role, identity.pod, identity.revision, identity.incarnation, identity.token)
        return make_identity(self.engine, *who, self._kv_settings)

    def _make_preflight(self) -> Preflight:
        peers = self._kv_settings.peers if self.identity.role == "decode" else ()
        return Preflight(self.receiver, peers, lambda: self.changed.set())

    def stop(self) -> None:
        """Closes the kv connections and the engine."""
        self.preflight.stop()
        self.sender.stop()
        self.receiver.stop()
        self.engine.engine.stop()
