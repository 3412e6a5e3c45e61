"""The aggregated form: fits find what made the data, and time has causes that only add up."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_operator.performance.aggregated import Efficiency, Load, Server, fit, ideal, tpot_seconds, ttft_seconds
from tandem_operator.performance.config_reader import read_shape
from tandem_operator.performance.least_squares import fit_relative, non_negative

from tests.bench.report import Report
from tests.bench.stages.speed import MEASURED, TPOT_MAPE, TTFT_MAPE, measure_speed
from tests.operator.performance.devices import H100, L40S
from tests.operator.performance.public_models import PUBLIC_MODELS

LLAMA: Final = read_shape(PUBLIC_MODELS["Llama-3.1-8B"].config)
TRUTH: Final = Efficiency(
    step_layer_s=8e-5, step_sequence_s=3e-5, compute=1.4, read=1.1, link=1.7,
    first_layer_s=3e-4, first_prompt=1.6, first_link=2.0, queued_prompt=0.1, queued_link=0.05, first_step=1.2,
    room_wait=1.0,
)  # fmt: skip


def server(tensor_parallel: int = 1) -> Server:
    return Server(shape=LLAMA, hardware=H100, tensor_parallel=tensor_parallel)


def load(prompt: int, output: int, concurrency: int) -> Load:
    return Load(prompt_tokens=prompt, output_tokens=output, concurrency=concurrency)


def test_a_fit_finds_what_made_the_measurements_and_predicts_others() -> None:
    rng = random.Random(1)
    servers = [server(tp) for tp in (1, 2, 4) for _ in range(30)]
    loads = [load(rng.choice((512, 2048, 8192)), rng.choice((64, 512, 2048)), 2 ** rng.randint(0, 7)) for _ in servers]
    tpot = [tpot_seconds(TRUTH, s, one) * rng.uniform(0.97, 1.03) for s, one in zip(servers, loads, strict=True)]
    ttft = [ttft_seconds(TRUTH, s, one) * rng.uniform(0.97, 1.03) for s, one in zip(servers, loads, strict=True)]
    found = fit(servers, loads, tpot, ttft)
    for one in (load(1024, 256, 24), load(4096, 1024, 48)):
        assert tpot_seconds(found, server(), one) == pytest.approx(tpot_seconds(TRUTH, server(), one), rel=0.04)
        assert ttft_seconds(found, server(), one) == pytest.approx(ttft_seconds(TRUTH, server(), one), rel=0.08)


@settings(max_examples=100, deadline=None)
@given(st.integers(16, 20_000), st.integers(8, 4000), st.integers(1, 250), st.sampled_from((1, 2, 4, 8)))
def test_more_clients_never_make_anyone_faster(prompt: int, output: int, clients: int, tensor_parallel: int) -> None:
    few, more = load(prompt, output, clients), load(prompt, output, clients + 5)
    one = server(tensor_parallel)
    assert 0 < tpot_seconds(TRUTH, one, few) <= tpot_seconds(TRUTH, one, more) * (1 + 1e-9)
    assert 0 < ttft_seconds(TRUTH, one, few) <= ttft_seconds(TRUTH, one, more) * (1 + 1e-9)


def test_who_finds_no_room_waits_and_does_not_slow_those_that_run() -> None:
    fits = int(ideal(server(), load(8192, 1024, 1000)).running)
    assert fits < 60
    at, beyond = load(8192, 1024, fits), load(8192, 1024, 3 * fits)
    assert tpot_seconds(TRUTH, server(), beyond) == pytest.approx(tpot_seconds(TRUTH, server(), at), rel=0.05)
    assert ttft_seconds(TRUTH, server(), beyond) > ttft_seconds(TRUTH, server(), at) + 10


def test_a_link_through_the_host_is_slower_than_one_beside_it() -> None:
    bridge = msgspec.structs.replace(L40S.interconnect, kind="NVLink", bytes_per_s=300e9, domain_devices=2)
    pair = msgspec.structs.replace(L40S, interconnect=bridge)
    within = ideal(Server(shape=LLAMA, hardware=pair, tensor_parallel=2), load(4096, 128, 8))
    across = ideal(Server(shape=LLAMA, hardware=pair, tensor_parallel=4), load(4096, 128, 8))
    assert across.prompt_link_s > 10 * within.prompt_link_s


def test_least_squares_are_never_negative_and_exact_where_they_can_be() -> None:
    rows = [(1.0, float(n), float(n * n % 7)) for n in range(1, 20)]
    values = [2 * a + 3 * b + 0.5 * c for a, b, c in rows]
    assert fit_relative(rows, values) == pytest.approx((2, 3, 0.5), rel=1e-4)
    falling = [(1.0, float(n)) for n in range(1, 10)]
    assert fit_relative(falling, [10.0 - n / 2 for n in range(1, 10)])[1] == 0
    assert non_negative([(1.0, 0.0), (1.0, 0.0)], [1.0, 1.0]) == pytest.approx((1.0, 0.0))


def test_a_fit_says_what_it_cannot_use() -> None:
    with pytest.raises(ValueError, match="at least one"):
        fit_relative([], [])
    with pytest.raises(ValueError, match="2 rows and 1 values"):
        fit_relative([(1.0,), (2.0,)], [1.0])
    with pytest.raises(ValueError, match="above 0"):
        fit_relative([(1.0,)], [0.0])


def test_without_the_measurements_the_bench_says_what_it_left_out(tmp_path: Path) -> None:
    report = Report("placement", {})
    measure_speed(report, tmp_path / "absent.csv")
    assert "silicon_measured.csv" in report.as_dict()["left_out"][0]["why"]


@pytest.mark.skipif(not MEASURED.exists(), reason="no ../shared/perf/silicon_measured.csv beside the repo")
def test_dense_models_are_predicted_within_the_bounds_that_the_project_asks_for() -> None:
    report = Report("placement", {})
    measure_speed(report)
    told = report.as_dict()
    dense = [figures for group, figures in told["figures"].items() if "gpt-oss" not in group]
    assert len(dense) == 3
    assert all(figures["tpot_mape"] <= TPOT_MAPE and figures["ttft_mape"] <= TTFT_MAPE for figures in dense)
    assert told["missed"] == []
