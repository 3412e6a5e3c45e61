"""What the router counts since it started: cumulative, so that readers may lose samples and sum over routers."""

from __future__ import annotations

from typing import Final

from tandem_runtime.contracts.classes import Classes
from tandem_runtime.contracts.goodput import ClassTotals, End, SloClass
from tandem_runtime.openai.errors import CLIENT_GONE_STATUS
from tandem_runtime.openai.record import RequestRecord

SHED_STATUSES: Final = frozenset({429, 503})
"""The fleet had no room or no pod for it."""
MEMORY: Final = 0.05
"""Weight of one more answer in the length that the next ones are expected to have."""


class Counters:
    """Requests by class and how they ended. Those refused before they asked for a pod count only as answers."""

    def __init__(self, classes: Classes | None = None) -> None:
        self.totals: dict[str, ClassTotals] = {}
        self.retried = 0
        """Requests that needed more than one pod."""
        self.answers: dict[tuple[str, str, str], int] = {}
        """By (status, reason, class)."""
        self.output_tokens = 0
        """Of all answers, those that broke off too."""
        self._arrived: dict[str, ClassTotals] = {}
        self._lengths: dict[str, float] = {}
        self.set_classes(classes or Classes())

    def set_classes(self, classes: Classes) -> None:
        """Counts of classes that are gone stay: they are cumulative."""
        for slo in classes.all:
            if slo.name in self.totals:
                self.totals[slo.name].slo = slo
            else:
                self.totals[slo.name] = ClassTotals(slo)

    def arrive(self, submit_id: str, slo: SloClass, prompt_tokens: int, cached_tokens: int = 0) -> None:
        """At the door, whatever becomes of it."""
        totals = self.totals.setdefault(slo.name, ClassTotals(slo))
        totals.arrive(prompt_tokens, cached_tokens)
        self._arrived[submit_id] = totals

    def expected_output_tokens(self, request_class: str, max_tokens: int) -> int:
        """What an answer of this class is expected to take: as long as the recent ones, and no longer than asked."""
        return min(max_tokens, int(self._lengths.get(request_class, 0.0)))

    def count(self, record: RequestRecord) -> None:
        """One request has ended; the record gets the verdict."""
        answer = (str(record.status), record.reason, record.request_class)
        self.answers[answer] = self.answers.get(answer, 0) + 1
        totals = self._arrived.pop(record.submit_id, None)
        if totals is None:
            return  # refused before it could ask for a pod
        self.retried += record.attempts > 1
        self.output_tokens += record.output_tokens
        end = end_of(record.status)
        record.verdict = totals.finish(record.prompt_tokens, end, record.times(), record.seconds).value
        if end is End.COMPLETED:
            known = self._lengths.get(record.request_class, float(record.output_tokens))
            self._lengths[record.request_class] = known + MEMORY * (record.output_tokens - known)


def end_of(status: int) -> End:
    """How a request ended, by its status."""
    if status == 200:
        return End.COMPLETED
    if status == CLIENT_GONE_STATUS:
        return End.CANCELLED
    if status in SHED_STATUSES:
        return End.SHED
    return End.FAILED if status >= 500 else End.REFUSED
