"""Steps of sequences for the compiled kernels."""

from __future__ import annotations

from tandem_runtime.engine.executor import SequenceStep
from tandem_runtime.models.native import Batch


def make_batch(steps: list[SequenceStep], page_tokens: int) -> Batch:
    """All tokens in one flat batch; logits of the last `rows` tokens of those that are sampled."""
    batch = Batch([], [], [0], [0], [], [])
    for step in steps:
        end = step.position + len(step.token_ids)
        batch.token_ids.extend(step.token_ids)
        batch.positions.extend(range(step.position, end))
        batch.pages.extend(step.pages[: -(-end // page_tokens)])
        batch.first_rows.append(len(batch.token_ids))
        batch.first_pages.append(len(batch.pages))
        if step.sampling is not None:
            batch.output_rows.extend(range(len(batch.token_ids) - step.rows, len(batch.token_ids)))
    return batch
