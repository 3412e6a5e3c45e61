"""Compiled kernels of every instruction set that this CPU runs or that can be emulated, beside torch in float64."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch
from tandem_runtime.native.build import BuildError
from tandem_runtime.ops.native import INSTRUCTION_SETS, Native
from tandem_runtime.ops.native_structs import (
    ChoiceStruct,
    ChosenStruct,
    LayerStruct,
    LinearStruct,
    ModelStruct,
    StepStruct,
)
from tandem_runtime.ops.packed import Packing
from torch.nn import functional

from tests.runtime.ops.emulation import WIDE, emulated

TOLERANCE = 1e-5
"""Of the largest value: weights are exact, sums are float32 in another order; int8 sums are exact."""
ONE_STEP = 5e-3
"""A value in the middle between two steps may be rounded either way."""
INT8_NOISE = 2e-2
"""What rounding to int8 may cost at most, of the largest value of a wide layer."""

KINDS = (LinearStruct, LayerStruct, ModelStruct, StepStruct, ChoiceStruct, ChosenStruct)


FINE_ROWS = 7
"""Wide instruction sets round the activations of larger batches to 8 bits where weights are int8."""


@pytest.fixture(params=(*INSTRUCTION_SETS, *(f"{name}, emulated" for name in WIDE)), scope="module")
def native(request: pytest.FixtureRequest) -> Iterator[Native]:
    name, _, how = request.param.partition(", ")
    with emulated(name) if how else nullcontext():
        try:
            yield Native(name, 2)
        except BuildError as error:
            pytest.skip(f"unverified here: {error}")


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def distance(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got.double() - want).abs().max() / want.abs().max())


def rounded(rows: torch.Tensor, top: int) -> torch.Tensor:
    """Each row in `top` steps of its largest value: the definition of what int8 linears compute with."""
    scale = rows.float().abs().amax(dim=-1, keepdim=True) / top
    return (rows.float() / scale).round().double() * scale


def largest_activation(native: Native, rows: int, columns: int) -> int:
    fine = rows <= FINE_ROWS or native.instruction_set not in WIDE
    return min(2047, (2**31 - 1) // (127 * (columns + 1))) if fine else 127


def reference(
    native: Native, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, int8: bool
) -> torch.Tensor:
    if int8:
        x, weight = rounded(x, largest_activation(native, *x.shape)), rounded(weight, 127)
    elif native.instruction_set in WIDE:
        x = x.bfloat16()
    return product(x, weight, bias)


def product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return functional.linear(x.double(), weight.double(), None if bias is None else bias.double())


@pytest.mark.parametrize(("n", "k"), [(97, 33), (128, 256), (40, 1000)])
@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_a_packed_linear_is_the_product_for_any_number_of_rows(
    native: Native, n: int, k: int, int8: bool, biased: bool
) -> None:
    weight, bias = numbers(n, k).bfloat16(), numbers(n).bfloat16() if biased else None
    linear = Packing(native, int8)(weight, bias)
    for rows in (*range(1, 10), 13, 17, 32, 33, 131):
        x = numbers(rows, k)
        assert distance(linear(x), reference(native, x, weight, bias, int8)) < (ONE_STEP if int8 else TOLERANCE)
        assert distance(linear(x), product(x, weight, bias)) < INT8_NOISE


@pytest.mark.parametrize("inner", [5, 16, 44])
@pytest.mark.parametrize("int8", [False, True])
def test_gate_and_up_in_one_panel_give_their_gated_product(native: Native, inner: int, int8: bool) -> None:
    weight, bias = numbers(2 * inner, 64).bfloat16(), numbers(2 * inner).bfloat16()
    linear = Packing(native, int8)(weight, bias, pairs=True)
    for rows in (1, 4, 7, 8, 19):
        x = numbers(rows, 64)
        gate, up = reference(native, x, weight, bias, int8).chunk(2, dim=-1)
        assert distance(linear(x), functional.silu(gate) * up) < (ONE_STEP if int8 else TOLERANCE)


def test_int8_sums_stay_exact_where_they_are_largest(native: Native) -> None:
    """All products of one sign: what saturating instructions would get wrong."""
    weight = torch.full((32, 4096), 3.0).bfloat16()
    for rows in (2, 20):
        got = Packing(native, True)(weight)(torch.full((rows, 4096), 5.0))
        assert distance(got, torch.full((rows, 32), 61440.0)) < 1e-6


@pytest.mark.parametrize(("n", "k"), [(70, 33), (33, 100), (64, 520)])
def test_integers_are_multiplied_exactly(native: Native, n: int, k: int) -> None:
    """With these largest values all scales are 1 and no sum is above 2^24."""
    weight = (numbers(n, k) * 40).round().clamp(-127, 127)
    weight[:, 0] = 127
    linear = Packing(native, True)(weight.bfloat16())
    for rows in (1, 2, 5, 7, 8, 16, 21, 40, 150):
        top = largest_activation(native, rows, k)
        x = (numbers(rows, k) * top / 4).round().clamp(-top, top)
        x[:, k - 1] = -top
        assert torch.equal(linear(x).double(), product(x, weight))


def test_structures_are_as_large_as_the_compiler_has_them() -> None:
    sizes = [ctypes.sizeof(kind) for kind in KINDS]
    assert sizes == [48, 3 * 8 + 4 * 48 + 16, 6 * 8 + 5 * 8 + 8, 3 * 8 + 6 * 8 + 4 * 8, 17 * 8, 5 * 8]
