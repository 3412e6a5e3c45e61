"""What the scheduler decided for one step, as the executor takes it, and what came back, request by request. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tandem_runtime.contracts.sampling import Alternatives
from tandem_runtime.engine.executor import Plan, SequenceStep, StepResult
from tandem_runtime.engine.request import Request, page_count


@dataclass(frozen=True, slots=True)
class Work:
    """One request's part of a step: `tokens` of its own and of `drafts`, which follow its last one."""

    request: Request
    tokens: int
    samples: bool
    drafts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Drawn:
    """What was drawn after a request's last token and after each of its drafts; one None where nothing was asked."""

    ids: Sequence[int | None]
    logprobs: Sequence[float | None]
    alternatives: Sequence[Alternatives]


def make_plan(work: Sequence[Work], page_tokens: int) -> Plan:
    """As the executor takes it."""
    return Plan([_step(item, page_tokens) for item in work])


def _step(item: Work, page_tokens: int) -> SequenceStep:
    request, position = item.request, item.request.computed
    end = position + item.tokens
    own = end - len(item.drafts)
    sampling = request.sampling if item.samples else None
    counts = sampling is not None and sampling.counts_tokens
    return SequenceStep(
        token_ids=[*request.tokens[position:own], *item.drafts],
        position=position,
        pages=request.pages[: page_count(end, page_tokens)],
        sampling=sampling,
        output_index=own - request.prompt_tokens,
        prompt_digest=request.prompt_digest,
        tokens=[*request.tokens[:own], *item.drafts] if counts else (),
        drafts=len(item.drafts),
    )


def take_apart(work: Sequence[Work], result: StepResult) -> Iterator[tuple[Work, Drawn]]:
    """Raises ValueError when there are more or fewer rows than were asked for."""
    wanted = sum(1 + len(item.drafts) for item in work)
    alternatives = result.alternatives or [[] for _ in range(wanted)]
    if not wanted == len(result.ids) == len(result.logprobs) == len(alternatives):
        raise ValueError(f"{len(result.ids)} rows came from the executor, {wanted} were asked for")
    row = 0
    for item in work:
        end = row + 1 + len(item.drafts)
        yield item, Drawn(result.ids[row:end], result.logprobs[row:end], alternatives[row:end])
        row = end
