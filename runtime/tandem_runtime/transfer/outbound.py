"""Prefill side of one attempt: what is computed, granted, sent and asked for again; when it is over. Pure, no I/O.

It ends exactly once: Released is the last step that it asks for, and its pages are free then.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.engine.events import Parts, PrefillDone
from tandem_runtime.engine.request import page_count
from tandem_runtime.transfer.identity import chain_hash
from tandem_runtime.transfer.limits import HandoffLimits
from tandem_runtime.transfer.steps import OutboundStep, Released, Reread, Tell


@dataclass(frozen=True, slots=True)
class PageOut:
    """One page to send now, to (page, generation) of D."""

    ordinal: int
    place: tuple[int, int]
    parts: Parts


class Outbound:
    """Times are seconds of the caller's clock. `ordinal`: number of a page in the sequence."""

    def __init__(self, request: kv.Prefill, layout: kv.Layout, limits: HandoffLimits, now: float) -> None:
        self.request = request
        self.ended = False
        self.sent_frames = 0
        self._limits = limits
        self._first = request.have_pages
        self.pages = page_count(len(request.tokens), layout.page_tokens) - self._first
        """How many will be sent."""
        self._granted: list[tuple[int, int]] = []
        self._computed: deque[tuple[int, Parts]] = deque()
        self._sent: set[int] = set()
        self._asked_again: set[int] = set()
        self._resent: set[int] = set()
        self._done: PrefillDone | None = None
        self._committed = False
        self._lease_end = now + limits.lease_seconds
        self._waits_since: float | None = None
        """Since when nothing goes on that is up to the peer."""

    @property
    def key(self) -> tuple[str, int]:
        """As messages name it."""
        return self.request.req, self.request.attempt

    @property
    def committed(self) -> bool:
        """All is sent, as far as this side knows."""
        return self._committed

    def accept(self) -> list[OutboundStep]:
        """The engine has the request."""
        return [Tell(kv.Ready(*self.key, self.pages))]

    def renew(self, now: float) -> None:
        """The peer said something."""
        self._lease_end = now + self._limits.lease_seconds

    def grant(self, pages: list[tuple[int, int]], first: int, now: float) -> list[OutboundStep]:
        """More room at D; `first`: how many D had granted before, -1 when it does not say."""
        held = len(self._granted)
        if self.ended or 0 <= first < held:
            return []  # it came twice
        if first > held:
            return self.give_up(f"GRANT from page {first} on; {held} were granted before")
        self._granted.extend(pages)
        if len(self._granted) > self.pages:
            return self.give_up(f"{len(self._granted)} pages granted for {self.pages}")
        self._watch(now, moved=True)
        return []

    def add_pages(self, first: int, payloads: list[Parts], now: float) -> list[Parts]:
        """Pages from number `first` on are computed. Returns those that nobody wants, to be let go at once."""
        pages = list(enumerate(payloads, first))
        unwanted = [parts for ordinal, parts in pages if self.ended or ordinal < self._first]
        if not self.ended:
            self._computed.extend((ordinal, parts) for ordinal, parts in pages if ordinal >= self._first)
            self._watch(now)
        return unwanted

    def finish(self, done: PrefillDone, now: float) -> None:
        """The engine has computed everything."""
        self._done = done
        self._watch(now)

    def nack(self, pages: list[int], now: float) -> list[OutboundStep]:
        """Pages of D that came damaged or not at all: each is sent once more."""
        if self.ended:
            return []
        numbers = {page: ordinal for ordinal, (page, _) in enumerate(self._granted, self._first)}
        ordinals = [numbers[page] for page in pages if page in numbers]
        if len(ordinals) < len(pages):
            return self.give_up(f"NACK for pages {pages[:8]}, of which some were never granted")
        ordinals = [ordinal for ordinal in ordinals if ordinal in self._sent]  # the others are still to come
        if not self._asked_again.isdisjoint(ordinals):
            return self.give_up(f"pages {pages[:8]} failed twice")
        self._asked_again.update(ordinals)
        self._committed = False
        self._watch(now, moved=True)
        return [Reread(ordinals)] if ordinals else []

    def next_page(self) -> PageOut | None:
        """What can be sent now; the caller says `sent` when it is out."""
        if self.ended or not self._computed or self._place(self._computed[0][0]) is None:
            return None
        ordinal, parts = self._computed.popleft()
        place = self._place(ordinal)
        assert place is not None
        return PageOut(ordinal, place, parts)

    def is_repair(self, page: PageOut) -> bool:
        """It went out before, and did not arrive well."""
        return page.ordinal in self._sent

    def sent(self, page: PageOut, now: float) -> None:
        """All frames of the page are out."""
        if page.ordinal in self._sent:
            self._resent.add(page.ordinal)
        self._sent.add(page.ordinal)
        self._watch(now, moved=True)

    def commit(self, token: str, now: float) -> list[OutboundStep]:
        """COMMIT when everything is out that there is; again after pages were sent again."""
        done, request = self._done, self.request
        repaired = self._asked_again == self._resent
        if self.ended or done is None or self._committed or len(self._sent) < self.pages or not repaired:
            return []
        self._committed = True
        self._watch(now, moved=True)
        message = kv.Commit(
            req=request.req,
            attempt=request.attempt,
            n_tokens=done.n_tokens,
            first_token=done.first_token,
            logprob=done.logprob,
            chain_hash=chain_hash([*request.tokens, done.first_token], token, request.salt),
            frames_sent=self.sent_frames,
            resent_pages=len(self._resent),
            alternatives=done.alternatives,
            cached_tokens=done.cached_tokens,
        )
        return [Tell(message)]

    def acknowledge(self) -> list[OutboundStep]:
        """D has everything."""
        return self._release(completed=True)

    def give_up(self, reason: str = "") -> list[OutboundStep]:
        """Ends it without a result; with a reason D hears why. Idempotent."""
        told: list[OutboundStep] = [Tell(kv.Abort(*self.key, reason))] if reason and not self.ended else []
        return [*told, *self._release(completed=False)]

    def refuse(self, retry_ms: int) -> list[OutboundStep]:
        """No room after all: D asks another pod."""
        told: list[OutboundStep] = [Tell(kv.Busy(*self.key, retry_ms))] if not self.ended else []
        return [*told, *self._release(completed=False)]

    def expire(self, now: float) -> list[OutboundStep]:
        """To be called often; ends what is held for nobody."""
        if now >= self._lease_end:
            return self.give_up(f"the lease ended: nothing was heard for {self._limits.lease_seconds:g} s")
        if self._waits_since is not None and now - self._waits_since >= self._limits.stuck_seconds:
            what = "no ACK after COMMIT" if self._committed else "computed pages are not taken"
            return self.give_up(f"{what} for {self._limits.stuck_seconds:g} s")
        return []

    def drop_computed(self) -> list[Parts]:
        """Payloads that will not be sent any more."""
        left = [parts for _, parts in self._computed]
        self._computed.clear()
        return left

    def _place(self, ordinal: int) -> tuple[int, int] | None:
        number = ordinal - self._first
        return self._granted[number] if number < len(self._granted) else None

    def _watch(self, now: float, moved: bool = False) -> None:
        """Starts, renews or stops the clock of what is up to the peer."""
        if not (self._committed or self._computed):
            self._waits_since = None
        elif moved or self._waits_since is None:
            self._waits_since = now

    def _release(self, completed: bool) -> list[OutboundStep]:
        if self.ended:
            return []
        self.ended = True
        return [Released(completed)]
