"""int8 keys and values: what rounding costs at most, and where codes and scales lie."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tandem_runtime.contracts.kv_protocol import Layout
from tandem_runtime.engine.kv_pool import KvPool
from tandem_runtime.ops.kv_pages import SMALLEST, dequantise, plane_bytes, quantise

ROUNDING = 127 * 2**-22
"""Of a step: what float32 adds to the half."""
VALUES = st.lists(st.floats(-(2.0**120), 2.0**120, width=32), min_size=1, max_size=24)
LAYOUT = Layout(3, 2, 16, 32, "int8", 3 * 2 * 2 * plane_bytes(32, 16, torch.int8))


def pool(pages: int = 4) -> KvPool:
    return KvPool(LAYOUT, pages, torch.float32, torch.device("cpu"))


@given(VALUES)
def test_no_value_is_off_by_more_than_half_a_step(values: list[float]) -> None:
    exact = torch.tensor([values])
    codes, scales = quantise(exact)
    assert codes.dtype == torch.int8
    assert int(codes.abs().max()) <= 127
    error = (dequantise(codes, scales).double() - exact.double()).abs()
    assert bool((error <= scales.double() * (0.5 + ROUNDING)).all())
    assert float(scales) == pytest.approx(max(SMALLEST, *map(abs, exact[0].tolist())) / 127, rel=1e-6)


def test_a_value_that_is_no_number_is_not_hidden() -> None:
    codes, scales = quantise(torch.tensor([[1.0, math.nan, 2.0]]))
    assert bool(dequantise(codes, scales).isnan().all())


def test_a_token_has_the_same_bytes_whatever_is_stored_beside_it() -> None:
    rows = torch.randn(5, 2, 16, generator=torch.Generator().manual_seed(2))
    together, alone = pool(), pool()
    slots = torch.arange(5)
    together.layer(1)[0].write(rows, torch.full((5,), 2), slots)
    for slot in range(5):
        alone.layer(1)[0].write(rows[slot : slot + 1], torch.tensor([2]), torch.tensor([slot]))
    assert torch.equal(together.tensor, alone.tensor)


def test_layers_of_a_page_are_one_block_of_bytes_with_their_scales() -> None:
    ours, theirs = pool(), pool()
    rows = torch.randn(32, 2, 16, generator=torch.Generator().manual_seed(4))
    for layer in range(3):
        for part, view in enumerate(ours.layer(layer)):
            view.write(rows * (1 + layer + part), torch.full((32,), 3), torch.arange(32))
    for first, end in ((0, 1), (1, 3)):
        payloads = ours.read([3], first, end)
        assert payloads[0].nbytes == (end - first) * LAYOUT.page_bytes // 3
        theirs.write([1], first, end, payloads)
    for layer in range(3):
        for part, view in enumerate(theirs.layer(layer)):
            got = view.read(torch.tensor([[1]]))[0].transpose(0, 1)
            want = dequantise(*quantise(rows * (1 + layer + part)))
            assert torch.equal(got, want)


def test_a_cleared_page_reads_as_zeros() -> None:
    pages = pool()
    pages.tensor.fill_(-1)
    pages.clear([1])
    assert bool((pages.layer(2)[1].read(torch.tensor([[1]])) == 0).all())


@pytest.mark.parametrize(("head_dim", "times"), [(64, 1.88), (128, 1.93)])
def test_the_same_memory_holds_nearly_twice_the_tokens(head_dim: int, times: float) -> None:
    assert plane_bytes(32, head_dim, torch.bfloat16) / plane_bytes(32, head_dim, torch.int8) >= times
