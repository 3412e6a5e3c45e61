"""Pages for a request that comes in: what the prefix cache has, what is fresh, and what must stay free for others.

Pure: it moves pages between the pool and requests, and decides nothing about order.
"""

from __future__ import annotations

from collections.abc import Sequence

from tandem_runtime.contracts.hashing import BLOCK_TOKENS
from tandem_runtime.engine.blocks import BlockPool
from tandem_runtime.engine.counters import Counters
from tandem_runtime.engine.executor import GONE, Capacity, first_page
from tandem_runtime.engine.limits import SchedulerSettings
from tandem_runtime.engine.request import Phase, Request, page_count


class Admission:
    """Of one scheduler."""

    def __init__(self, capacity: Capacity, settings: SchedulerSettings, counters: Counters) -> None:
        self.blocks = BlockPool(capacity.pages)
        self.keeps_prefixes = settings.prefix_cache and capacity.page_tokens % BLOCK_TOKENS == 0
        """Pages that are not whole blocks of the contract's hash cannot be shared."""
        self._capacity, self._settings, self._counters = capacity, settings, counters
        self._watermark = int(capacity.pages * settings.free_page_share)
        chunk = max(settings.step_tokens, settings.chunk_tokens if settings.deterministic else 0)
        # Window, chunk and the token after it, each of which begins and ends somewhere in a page.
        self._most_held = (capacity.window_tokens + chunk) // capacity.page_tokens + 3

    def reserve(self, request: Request, running: Sequence[Request]) -> bool:
        """Pages for the request's tokens and for the next one, as many as it can hold at once: never will it wait for
        another. False when it does not fit now."""
        active = sum(1 for r in running if r.phase is not Phase.SENDING)
        if active >= self._capacity.max_sequences:
            return False
        wanted = self._wanted(request)
        cached = self._find_prefix(request)
        known = [page for page in cached if page != GONE]
        shared = sum(1 for page in known if self.blocks.holders(page))
        fresh = wanted - len(cached)
        if self._slides(request):
            fresh = min(fresh, self._most_held - len(known) + shared)
        makes_good = self._make_good(known, running)
        needed = fresh + len(known) - shared + sum(count for _, count in makes_good)
        if self.blocks.free < needed + self._keep_free(request, wanted, running):
            return False
        self.blocks.take(known)
        for other, count in makes_good:
            other.spare += self.blocks.allocate(count)
        request.pages, request.spare = cached, self.blocks.allocate(fresh)
        self._settle(request)
        request.published = len(cached)
        request.computed = len(cached) * self._capacity.page_tokens
        if request.cached_tokens is None:
            request.cached_tokens = request.computed
            self._counters.prefix_asked_tokens += len(request.tokens)
            self._counters.prefix_hit_tokens += request.computed
        return True

    def _wanted(self, request: Request) -> int:
        """Length of its block table when its tokens are computed, with room for the next."""
        extra = 0 if request.handoff else 1
        return page_count(len(request.tokens) + extra, self._capacity.page_tokens)

    def _slides(self, request: Request) -> bool:
        return self._capacity.window_tokens > 0 and not (request.handoff or request.remote)

    def _missing(self, request: Request) -> int:
        """Pages of its tokens that it neither has nor has set aside: those behind the window will do."""
        return self._wanted(request) - len(request.pages) - len(request.spare)

    def _make_good(self, known: Sequence[int], running: Sequence[Request]) -> list[tuple[Request, int]]:
        """Who counts on getting pages back that would be shared from now on, and how many each gets instead."""
        taken = set(known)
        counting = [r for r in running if taken and r.phase is Phase.PREFILL and self._missing(r)]
        return [(r, min(self._missing(r), len(taken.intersection(r.pages)))) for r in counting]

    def _settle(self, request: Request) -> None:
        """With all pages that it needs there is nothing to set aside."""
        if not self._missing(request):
            request.pages, request.spare = request.pages + request.spare, []

    def cover(self, request: Request, tokens: int) -> None:
        """Pages for so many more tokens of its prompt, of those that are set aside."""
        count = page_count(request.computed + tokens, self._capacity.page_tokens) - len(request.pages)
        if count > 0:
            request.pages += request.spare[:count]
            del request.spare[:count]

    def _find_prefix(self, request: Request) -> list[int]:
        """Pages with the beginning of its tokens; the last token is always computed, as something must follow it."""
        if request.prefixes is None or not self.keeps_prefixes:
            return []
        whole = (len(request.tokens) - 1) // self._capacity.page_tokens
        hashes = request.prefixes.of_pages(request.tokens, whole)
        if self._capacity.window_tokens and not (request.handoff or request.remote):
            return self._find_window(hashes)
        return self.blocks.match(hashes)

    def _find_window(self, hashes: Sequence[bytes]) -> list[int]:
        """The longest beginning of which the last window is known: what lies before it is not needed to go on."""
        known = [self.blocks.find(digest) for digest in hashes]
        best = row = 0  # `row`: where the unbroken row of known pages begins
        for end, page in enumerate(known, 1):
            if page is None:
                row = end
            elif row <= self._first_page(end * self._capacity.page_tokens):
                best = end
        first = self._first_page(best * self._capacity.page_tokens)
        return [GONE] * first + [page for page in known[first:best] if page is not None]

    def _first_page(self, position: int) -> int:
        return first_page(position, self._capacity.window_tokens, self._capacity.page_tokens)

    def _keep_free(self, request: Request, wanted: int, running: Sequence[Request]) -> int:
        """Pages that must stay free: what those inside, and the request itself, will want soon."""
        if not running:
            return 0
        soon = sum(self._growth(r, self._covered(r)) for r in running) + self._growth(request, wanted)
        return max(self._watermark, soon)

    def _covered(self, request: Request) -> int:
        return self._wanted(request) if request.phase is Phase.PREFILL else len(request.pages)

    def _growth(self, request: Request, pages: int) -> int:
        if request.handoff:
            return 0
        tokens = min(len(request.tokens) + self._settings.headroom_tokens, request.most_tokens)
        return max(0, page_count(tokens, self._capacity.page_tokens) - pages)

    def advance(self, request: Request, tokens: int) -> None:
        """So many more tokens have their KV; pages that are complete now can be found by others, and those that fell
        out of the window are given back. A hand-off keeps all: its receiver may ask for any of them again."""
        request.computed += tokens
        self._publish(request)
        if not request.handoff:
            self._shed(request)

    def _publish(self, request: Request) -> None:
        whole = request.computed // self._capacity.page_tokens
        if whole <= request.published or request.prefixes is None or not self.keeps_prefixes:
            return
        hashes = request.prefixes.of_pages(request.tokens, whole)
        for ordinal in range(request.published, whole):
            self.blocks.publish(request.pages[ordinal], hashes[ordinal])
        request.published = whole

    def _shed(self, request: Request) -> None:
        first = self._first_page(request.computed)
        passed = [page for page in request.pages[:first] if page != GONE]
        if passed:
            self.blocks.release(passed)
            request.pages[:first] = [GONE] * first
            self._counters.passed_pages += len(passed)
        if request.phase is Phase.PREFILL:
            freed = sum(1 for page in passed if not self.blocks.holders(page))
            request.spare += self.blocks.allocate(min(self._missing(request), freed))
            self._settle(request)

    def free(self, request: Request) -> None:
        """Gives its pages back; those that are known by their hash can be found until they are needed."""
        self.blocks.release(request.held)
        request.pages, request.spare = [], []
        request.computed = request.published = 0
