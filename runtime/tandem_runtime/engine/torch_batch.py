"""Runs the sequences of one step through a model: together for speed, or block by block for equal bits.

Deterministic mode: position p is always row p % page_tokens of a block of page_tokens rows that starts at a page
boundary, rows not asked for being zero. All shapes depend on p alone, so neither the scheduler's chunks nor other
sequences nor a hand-over to another pod change a bit (on the same kind of processor and torch).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tandem_runtime.engine.executor import SequenceStep, first_page
from tandem_runtime.engine.kv_pool import KvPool
from tandem_runtime.models.config import ModelConfig
from tandem_runtime.models.llama import Llama
from tandem_runtime.ops.attention import block_attention, decode_attention, prefill_attention


def run_together(model: Llama, pool: KvPool, steps: list[SequenceStep], device: torch.device) -> Tensor:
    """All tokens in one flat batch -> hidden states of each sequence's last `rows` tokens [sum of rows, hidden]."""
    order = sorted(range(len(steps)), key=lambda index: len(steps[index].token_ids) > 1)
    batch = FlatBatch(pool, [steps[index] for index in order], device, model.config)
    hidden = model.forward(batch.token_ids, batch.positions, batch.attend)
    ends = dict(zip(order, batch.ends, strict=True))
    wanted = [row for index, step in enumerate(steps) for row in range(ends[index] - step.rows, ends[index])]
    return hidden[torch.tensor(wanted, device=device)]


class FlatBatch:
    """Index tensors of one step; sequences with one new token come first and are attended to as one batch."""

    def __init__(self, pool: KvPool, steps: list[SequenceStep], device: torch.device, config: ModelConfig) -> None:
        self._pool = pool
        self._config = config
        page_tokens = pool.layout.page_tokens
        ids: list[int] = []
        positions: list[int] = []
        pages: list[int] = []
        self.ends: list[int] = []
        """Of each sequence's rows."""
        for step in steps:
            ids.extend(step.token_ids)
            span = range(step.position, step.position + len(step.token_ids))
            positions.extend(span)
            pages.extend(step.pages[position // page_tokens] for position in span)
            self.ends.append(len(ids))
        pool.clear([page for page, position in zip(pages, positions, strict=True) if position % page_tokens == 0])
        self.token_ids, self.positions, self._page = (
            torch.tensor(column, dtype=torch.int64, device=device) for column in (ids, positions, pages)
        )
        self._slot = self.positions % page_tokens
        single = [step for step in steps if len(step.token_ids) == 1]
        self._chunks = steps[len(single) :]
        firsts = [first_page(step.position, config.window_tokens, page_tokens) for step in steps]
        used = [
            step.pages[first : (step.position + len(step.token_ids) - 1) // page_tokens + 1]
            for step, first in zip(steps, firsts, strict=True)
        ]
        starts = [step.position - first * page_tokens for step, first in zip(steps, firsts, strict=True)]
        self._lengths = torch.tensor(starts[: len(single)], dtype=torch.int64, device=device) + 1
        self._chunk_starts = starts[len(single) :]
        """As both are counted from the first token that is still seen."""
        self._chunk_tables = [torch.tensor([table], device=device) for table in used[len(single) :]]
        used = used[: len(single)]
        widest = max(map(len, used), default=0)
        padded = [table + [table[0]] * (widest - len(table)) for table in used]
        self._table = torch.tensor(padded, dtype=torch.int64, device=device)

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Stores the new keys and values, then attends to all of each sequence's."""
        key_pages, value_pages = self._pool.layer(layer)
        key_pages.write(keys, self._page, self._slot)
        value_pages.write(values, self._page, self._slot)
        window = self._config.window(layer)
        parts: list[Tensor] = []
        row = self._lengths.shape[0]
        if row:
            context = key_pages.read(self._table), value_pages.read(self._table)
            parts.append(decode_attention(query[:row], *context, self._lengths, window))
        for step, start, table in zip(self._chunks, self._chunk_starts, self._chunk_tables, strict=True):
            tokens = len(step.token_ids)
            end = start + tokens
            context = key_pages.read(table)[0, :, :end], value_pages.read(table)[0, :, :end]
            parts.append(prefill_attention(query[row : row + tokens], *context, start, window))
            row += tokens
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def run_alone(model: Llama, pool: KvPool, step: SequenceStep) -> Tensor:
    """One sequence in fixed blocks -> hidden states of its last `rows` tokens [rows, hidden]."""
    page_tokens = pool.layout.page_tokens
    end = step.position + len(step.token_ids)
    hidden: list[Tensor] = []
    for start in range(step.position - step.position % page_tokens, end, page_tokens):
        first, last = max(start, step.position), min(start + page_tokens, end)
        block = FixedBlock(pool, step, start, first, last, model.config)
        rows = model.forward(block.token_ids, block.positions, block.attend)
        hidden.append(rows[max(first, end - step.rows) - start : last - start])
    return torch.cat(hidden)


class FixedBlock:
    """The block of rows from `start`; only [first, last) of them are real."""

    def __init__(
        self, pool: KvPool, step: SequenceStep, start: int, first: int, last: int, config: ModelConfig
    ) -> None:
        self._pool = pool
        self._config = config
        device = pool.tensor.device
        rows = pool.layout.page_tokens
        ids = [0] * rows
        ids[first - start : last - start] = step.token_ids[first - step.position : last - step.position]
        self.token_ids = torch.tensor(ids, device=device)
        self.positions = torch.arange(start, start + rows, device=device)
        self._real = slice(first - start, last - start)
        self._slot = torch.arange(first - start, last - start, device=device)
        self._page = torch.full_like(self._slot, step.pages[start // rows])
        seen = first_page(start, config.window_tokens, rows)
        self._behind = start - seen * rows
        """Tokens before the block that are still seen."""
        self._table = torch.tensor([step.pages[seen : start // rows + 1]], device=device)
        if first == start:
            pool.clear([step.pages[start // rows]])

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Stores the real rows' keys and values, then attends with fixed shapes."""
        key_pages, value_pages = self._pool.layer(layer)
        key_pages.write(keys[self._real], self._page, self._slot)
        value_pages.write(values[self._real], self._page, self._slot)
        context = key_pages.read(self._table)[0], value_pages.read(self._table)[0]
        return block_attention(query, *context, self._behind, self._config.window(layer))
