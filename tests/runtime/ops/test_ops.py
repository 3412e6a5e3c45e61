"""The reference kernels agree with one another and with their formulas."""

from __future__ import annotations

import pytest
import torch
from tandem_runtime.ops import linear
from tandem_runtime.ops.attention import block_attention, decode_attention, prefill_attention
from tandem_runtime.ops.kv_pages import KvPages
from tandem_runtime.ops.norm import rms_norm, swiglu
from tandem_runtime.ops.rope import apply_rope, rope_tables

HEADS, KV_HEADS, DIM, PAGE = 6, 2, 8, 4


@pytest.fixture
def numbers() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def attend_plainly(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, position: int) -> torch.Tensor:
    """Row by row, head by head, in float64."""
    out = torch.zeros_like(query, dtype=torch.float64)
    for row in range(query.shape[0]):
        end = position + row + 1
        for head in range(HEADS):
            kv = head // (HEADS // KV_HEADS)
            scores = keys[kv, :end].double() @ query[row, head].double() * DIM**-0.5
            out[row, head] = torch.softmax(scores, dim=0) @ values[kv, :end].double()
    return out.float()


@pytest.mark.parametrize("position", [0, 8])
def test_prefill_decode_and_block_attention_are_the_same_formula(numbers: torch.Generator, position: int) -> None:
    rows = PAGE
    query = torch.randn(rows, HEADS, DIM, generator=numbers)
    keys, values = torch.randn(2, KV_HEADS, position + rows, DIM, generator=numbers)
    want = attend_plainly(query, keys, values, position)
    torch.testing.assert_close(prefill_attention(query, keys, values, position), want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(block_attention(query, keys, values, position), want, atol=1e-5, rtol=1e-5)
    lengths = torch.arange(position + 1, position + rows + 1)
    batch = keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1)
    torch.testing.assert_close(decode_attention(query, *batch, lengths), want, atol=1e-5, rtol=1e-5)


def test_a_row_of_a_block_has_the_same_bits_whatever_the_other_rows_hold(numbers: torch.Generator) -> None:
    query = torch.randn(PAGE, HEADS, DIM, generator=numbers)
    keys, values = torch.randn(2, KV_HEADS, 12 + PAGE, DIM, generator=numbers)
    whole = block_attention(query, keys, values, 12)
    for row in range(PAGE):
        alone, short_keys, short_values = torch.zeros_like(query), keys.clone(), values.clone()
        alone[row] = query[row]
        short_keys[:, 12 + row + 1 :] = 0
        short_values[:, 12 + row + 1 :] = 0
        assert torch.equal(block_attention(alone, short_keys, short_values, 12)[row], whole[row])


def test_what_is_stored_is_gathered_in_the_order_of_the_table(numbers: torch.Generator) -> None:
    keys, values = torch.randn(2, 2 * PAGE, KV_HEADS, DIM, generator=numbers)
    key_pages, value_pages = (KvPages(pages, torch.float32) for pages in torch.zeros(2, 5, KV_HEADS, PAGE, DIM))
    table = torch.tensor([[3, 1]])
    positions = torch.arange(2 * PAGE)
    for pages, rows in ((key_pages, keys), (value_pages, values)):
        pages.write(rows, table[0][positions // PAGE], positions % PAGE)
    assert torch.equal(key_pages.read(table)[0].transpose(0, 1), keys)
    assert torch.equal(value_pages.read(table)[0].transpose(0, 1), values)


def test_rope_keeps_lengths_and_depends_on_distance_alone(numbers: torch.Generator) -> None:
    query, key = torch.randn(2, 1, 1, DIM, generator=numbers)
    frequencies = 1.0 / 100 ** (torch.arange(0, DIM, 2) / DIM)

    def turned(x: torch.Tensor, position: int) -> torch.Tensor:
        return apply_rope(x, *rope_tables(torch.tensor([position]), frequencies, torch.float32))

    torch.testing.assert_close(turned(query, 9).norm(), query.norm())
    near, far = (float((turned(query, at) * turned(key, at - 4)).sum()) for at in (5, 300))
    assert near == pytest.approx(far, abs=1e-4)


def test_norm_and_activation_follow_their_formulas(numbers: torch.Generator) -> None:
    x, weight = torch.randn(3, 8, generator=numbers), torch.rand(8, generator=numbers)
    torch.testing.assert_close(rms_norm(x, weight, 0.1), x / (x.square().mean(-1, keepdim=True) + 0.1).sqrt() * weight)
    torch.testing.assert_close(swiglu(x), x[:, :4] * torch.sigmoid(x[:, :4]) * x[:, 4:])


@pytest.mark.parametrize("biased", [False, True])
def test_a_packed_weight_multiplies_as_the_plain_one(
    monkeypatch: pytest.MonkeyPatch, numbers: torch.Generator, biased: bool
) -> None:
    weight, x = torch.randn(16, 8, generator=numbers), torch.randn(5, 8, generator=numbers)
    bias = torch.randn(16, generator=numbers) if biased else None
    plain = linear.Linear(weight, bias)(x)
    monkeypatch.setattr(linear, "is_worth_packing", lambda _: torch.backends.mkldnn.is_available())
    with torch.inference_mode():
        torch.testing.assert_close(linear.Linear(weight, bias)(x), plain, atol=1e-5, rtol=1e-5)
