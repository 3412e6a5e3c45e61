"""Which requests of a step get drafts, and what became of them: speculation as the scheduler uses it."""

from __future__ import annotations

from tandem_runtime.engine.counters import Counters
from tandem_runtime.engine.limits import SchedulerSettings
from tandem_runtime.engine.request import Phase, Request
from tandem_runtime.engine.speculation import Drafter, share_rows
from tandem_runtime.engine.work import Work


class Drafting:
    """Of one scheduler. `context_tokens`: the longest sequence."""

    def __init__(self, settings: SchedulerSettings, page_tokens: int, context_tokens: int, counters: Counters) -> None:
        self._most = settings.draft_tokens
        self._rows = min(settings.speculative_rows, settings.step_tokens)
        self._page_tokens, self._context_tokens = page_tokens, context_tokens
        self._counters = counters

    def extend(self, work: list[Work]) -> list[Work]:
        """Where all decode and few do, rows that would cost next to nothing check what may come next."""
        if not self._most or len(work) >= self._rows or any(w.request.phase is not Phase.DECODE for w in work):
            return work
        spare = self._rows - len(work)
        extended: list[Work] = []
        for item in work:
            drafts = self._draft(item.request, share_rows(spare, len(work) - len(extended)))
            spare -= len(drafts)
            extended.append(Work(item.request, 1 + len(drafts), True, tuple(drafts)))
        return extended

    def _draft(self, request: Request, rows: int) -> list[int]:
        """Within the pages that it holds: a guess takes nobody's page. Never past the end of the answer."""
        here = len(request.tokens)
        held = len(request.pages) * self._page_tokens - here
        left = min(request.sampling.max_tokens - request.output_tokens, self._context_tokens - here) - 1
        room = min(rows, held, left)
        if room < 1:
            return []
        if request.drafter is None:
            request.drafter = Drafter(self._most)
        return request.drafter.draft(request.tokens, room)

    def learn(self, request: Request, proposed: int, held: int, taken: int) -> None:
        """Of `proposed` tokens the first `held` were right; `taken` of them became output, before it ended."""
        if proposed:
            self._counters.drafts += 1
            self._counters.draft_tokens += proposed
            self._counters.accepted_tokens += taken
            if request.drafter is not None:
                request.drafter.learn(proposed, held, len(request.tokens))
