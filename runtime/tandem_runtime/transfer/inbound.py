"""Decode side of one attempt at one request: what was granted, what has arrived, when it is over. Pure, no I/O.

It ends exactly once, with Completed or GivenUp; whatever comes later is ignored or stale.
"""

from __future__ import annotations

from enum import StrEnum

from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.contracts.framing import FrameError
from tandem_runtime.contracts.pod_protocol import PrefillPeer
from tandem_runtime.engine.request import page_count
from tandem_runtime.transfer.identity import chain_hash
from tandem_runtime.transfer.limits import HandoffLimits
from tandem_runtime.transfer.steps import Completed, GivenUp, InboundStep, Tell


class Stage(StrEnum):
    """Each but the last has a deadline."""

    CONNECTING = "connecting"
    ASKED = "asked"
    RECEIVING = "receiving"
    ENDED = "ended"


class Inbound:
    """`pages`: (page, generation) that the engine holds for the whole sequence, in order; those from
    `request.have_pages` on are granted, in portions. Times are seconds of the caller's clock."""

    def __init__(
        self,
        handle: int,
        request: kv.Prefill,
        peer: PrefillPeer,
        pages: list[tuple[int, int]],
        layout: kv.Layout,
        limits: HandoffLimits,
        now: float,
    ) -> None:
        self.handle, self.request, self.peer = handle, request, peer
        self.stage = Stage.CONNECTING
        self.received_bytes = 0
        self._layout, self._limits = layout, limits
        self._window = limits.window_pages(layout.page_bytes)
        wanted = page_count(len(request.tokens), layout.page_tokens)
        self._pages = pages[:wanted]
        self._first = request.have_pages
        self._granted = self._first
        """Number of the page that is granted next."""
        self._spent_bytes = 0
        """Of the credit: everything that came for this attempt, whether it could be used or not."""
        self._ordinals = {page: ordinal for ordinal, (page, _) in enumerate(self._pages)}
        self._arrived: dict[int, set[int]] = {}
        """Number of the page -> layers that are here."""
        self._damaged: set[tuple[int, int]] = set()
        """(number, first layer) of frames that came damaged once."""
        self._nacked: set[int] = set()
        self._deadline = now + limits.ready_seconds

    @property
    def key(self) -> tuple[str, int]:
        """As messages name it."""
        return self.request.req, self.request.attempt

    @property
    def ended(self) -> bool:
        """No frame of it is wanted any more."""
        return self.stage is Stage.ENDED

    @property
    def outstanding_pages(self) -> int:
        """Granted and not yet come: what the peer may send now."""
        return self._granted - self._first - self._spent_bytes // self._layout.page_bytes

    def ask(self, now: float) -> list[InboundStep]:
        """The connection stands."""
        if self.stage is not Stage.CONNECTING:
            return []
        self._enter(Stage.ASKED, now + self._limits.ready_seconds)
        return [Tell(self.request)]

    def hear(self, message: kv.Ready | kv.Busy | kv.Commit | kv.Abort, token: str, now: float) -> list[InboundStep]:
        """A message of the peer that names this attempt. `token` keys the hashes: the one said on the connection."""
        if self.ended:
            return []
        match message:
            case kv.Ready(n_pages=n_pages) if self.stage is Stage.ASKED:
                wanted = len(self._pages) - self._first
                if n_pages != wanted:
                    return self.give_up("protocol", tell=f"{n_pages} pages announced, {wanted} are wanted")
                self._enter(Stage.RECEIVING, now + self._limits.first_page_seconds)
                return self._grant()
            case kv.Ready() if self.stage is Stage.RECEIVING:
                return []  # said twice
            case kv.Busy():
                return self.give_up("busy")
            case kv.Abort():
                return self.give_up("aborted")
            case kv.Commit() if self.stage is Stage.RECEIVING:
                return self._commit(message, token, now)
        return self.give_up("protocol", tell=f"{type(message).__name__} while {self.stage}")

    def place(self, frame: kv.Frame, incarnation: str) -> int | None:
        """Number of the page in the sequence; None when the frame is not for what is granted now."""
        ordinal = self._ordinals.get(frame.page)
        if self.stage is not Stage.RECEIVING or ordinal is None or frame.incarnation != incarnation:
            return None
        granted = self._first <= ordinal < self._granted
        return ordinal if granted and self._pages[ordinal] == (frame.page, frame.generation) else None

    def take(self, frame: kv.Frame, ordinal: int | None, intact: bool, now: float) -> list[InboundStep]:
        """A frame of this attempt came. `ordinal` None: it was stale, and only its credit counts. Not `intact`: its
        page must not be used; it is asked for once more."""
        if self.ended:
            return []
        self._spent_bytes += frame.len
        if ordinal is None:
            return self._grant()
        self._deadline = now + self._limits.progress_seconds
        if intact:
            self.received_bytes += frame.len
            self._arrived.setdefault(ordinal, set()).update(range(frame.layer_first, frame.layer_end))
            return self._grant()
        spot = (ordinal, frame.layer_first)
        if spot in self._damaged:
            return self.give_up("crc", tell=f"page {frame.page} arrived damaged twice")
        self._damaged.add(spot)
        return [*self._nack([ordinal]), *self._grant()]

    def expire(self, now: float) -> list[InboundStep]:
        """To be called often; gives up what takes too long."""
        if self.ended or now < self._deadline:
            return []
        reason = {Stage.CONNECTING: "peer_lost", Stage.ASKED: "no_answer"}.get(self.stage, "stalled")
        return self.give_up(reason, tell=f"nothing came for too long while {self.stage}")

    def give_up(self, reason: str, tell: str = "") -> list[InboundStep]:
        """Ends the attempt; with `tell` the peer hears why. Idempotent."""
        if self.ended:
            return []
        asked = self.stage is not Stage.CONNECTING
        self.stage = Stage.ENDED
        told: list[InboundStep] = [Tell(kv.Abort(*self.key, tell))] if tell and asked else []
        return [*told, GivenUp(reason)]

    def _enter(self, stage: Stage, deadline: float) -> None:
        self.stage, self._deadline = stage, deadline

    def _grant(self) -> list[InboundStep]:
        """More room once half of the window came: one message for many pages."""
        left = len(self._pages) - self._granted
        if self.stage is not Stage.RECEIVING or not left or self.outstanding_pages > self._window // 2:
            return []
        start = self._granted
        self._granted += min(left, self._window - max(0, self.outstanding_pages))
        return [Tell(kv.Grant(*self.key, self._pages[start : self._granted], start - self._first))]

    def _nack(self, ordinals: list[int]) -> list[InboundStep]:
        """Each page is asked for once more, and only once."""
        fresh = [ordinal for ordinal in ordinals if ordinal not in self._nacked]
        self._nacked.update(fresh)
        return [Tell(kv.Nack(*self.key, [self._pages[ordinal][0] for ordinal in fresh]))] if fresh else []

    def _commit(self, message: kv.Commit, token: str, now: float) -> list[InboundStep]:
        tokens = self.request.tokens
        if message.n_tokens != len(tokens):
            return self.give_up("wrong_tokens", tell=f"KV of {message.n_tokens} tokens came for {len(tokens)}")
        whole = 0 <= message.first_token < 1 << 32  # what no hash takes
        if not whole or message.chain_hash != chain_hash([*tokens, message.first_token], token, self.request.salt):
            return self.give_up("wrong_tokens", tell="the KV or the first token is of others (chain hash differs)")
        missing = self._missing()
        if not missing:
            self.stage = Stage.ENDED
            return [Tell(kv.Ack(*self.key)), Completed(message)]
        if self._granted < len(self._pages):
            return self.give_up("protocol", tell=f"COMMIT before pages {missing[:8]} were granted")
        self._deadline = now + self._limits.progress_seconds
        if steps := self._nack(missing):
            return steps
        if message.resent_pages >= len(self._nacked):
            return self.give_up("incomplete", tell=f"pages {missing[:8]} did not come, sent twice")
        return []  # what was asked for again is on its way

    def _missing(self) -> list[int]:
        layers = self._layout.layers
        numbers = range(self._first, len(self._pages))
        return [ordinal for ordinal in numbers if len(self._arrived.get(ordinal, ())) < layers]


def check_shape(frame: kv.Frame, layout: kv.Layout) -> None:
    """Raises FrameError when the frame's layers or length are not of this layout."""
    layers = frame.layer_end - frame.layer_first
    if not 0 <= frame.layer_first < frame.layer_end <= layout.layers:
        raise FrameError(f"layers {frame.layer_first} to {frame.layer_end} of a model with {layout.layers}")
    if frame.len * layout.layers != layout.page_bytes * layers:
        raise FrameError(f"{frame.len} bytes for {layers} of {layout.layers} layers of {layout.page_bytes} bytes")
