"""The aggregated performance model against published vLLM measurements: half of the rows fit, half judge."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tandem_operator.performance.aggregated import Efficiency, Load, Server, fit, tpot_seconds, ttft_seconds
from tandem_operator.performance.config_reader import read_shape
from tandem_operator.performance.hardware import Quantization
from tandem_operator.performance.roofline import prior
from tandem_operator.placement.catalogue import bundled_hardware

from tests.bench.report import Report
from tests.operator.performance.public_models import PUBLIC_MODELS

MEASURED: Final = Path(__file__).parents[4] / "shared/perf/silicon_measured.csv"
TPOT_MAPE: Final = 0.10
TTFT_MAPE: Final = 0.25
LEAST_ROWS: Final = 10
"""Rows of a group that can be fitted: the form has twelve coefficients, seven of them for TTFT."""
WORSE: Final = 2.0
"""Rows further off than so many times the bound are named."""
DECODING: Final = 8
"""Output tokens per prompt token from which prompts hardly count."""
MODELS: Final = {
    "Qwen/Qwen3-32B": "Qwen3-32B",
    "meta-llama/Llama-3.1-70B": "Llama-3.1-70B",
    "openai/gpt-oss-120b": "gpt-oss-120b",
}
CLASSES: Final = {"h100_sxm": "h100-sxm", "h200_sxm": "h200-sxm"}
QUANTIZATIONS: Final[dict[str, Quantization]] = {"": "None", "fp8": "FP8", "fp4": "None"}
"""By `precision`; gpt-oss comes in MXFP4."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement."""

    group: str
    server: Server
    load: Load
    ttft_s: float
    tpot_s: float

    def __str__(self) -> str:
        load = self.load
        return f"TP{self.server.tensor_parallel} {load.prompt_tokens}+{load.output_tokens} x {load.concurrency}"


def read_rows(path: Path) -> tuple[list[Row], list[Row], int]:
    """Rows that fit, rows that judge, and how many were told twice (kept once, else a row would judge itself)."""
    with path.open(newline="") as file:
        lines = sorted(csv.DictReader(file), key=lambda line: line["id"])
    shapes = {name: read_shape(PUBLIC_MODELS[ours].config, name=ours) for name, ours in MODELS.items()}
    classes = {name: bundled_hardware(ours) for name, ours in CLASSES.items()}
    halves: tuple[list[Row], list[Row]] = ([], [])
    seen: set[tuple[Load, float, float]] = set()
    twice = 0
    for number, line in enumerate(lines):
        load = Load(prompt_tokens=int(line["isl"]), output_tokens=int(line["osl"]), concurrency=int(line["batch_size"]))
        name, gpu = MODELS[line["model_path"]], CLASSES[line["system"]]
        row = Row(
            group=", ".join(filter(None, (name, line["precision"] or "bf16", gpu, line["backend_version"]))),
            server=Server(
                shape=shapes[line["model_path"]],
                hardware=classes[line["system"]],
                tensor_parallel=int(line["tp_size"]),
                quantization=QUANTIZATIONS[line["precision"]],
            ),
            load=load,
            ttft_s=float(line["silicon_ttft_ms"]) / 1e3,
            tpot_s=float(line["silicon_tpot_ms"]) / 1e3,
        )
        key = (load, row.ttft_s, row.tpot_s)
        if key in seen:
            twice += 1
            continue
        seen.add(key)
        halves[number % 2].append(row)
    return *halves, twice


def fitted(rows: Iterable[Row]) -> Efficiency:
    """Efficiency of these rows."""
    listed = list(rows)
    return fit(
        [row.server for row in listed],
        [row.load for row in listed],
        [row.tpot_s for row in listed],
        [row.ttft_s for row in listed],
    )


def errors(efficiency: Efficiency, rows: Iterable[Row]) -> list[tuple[Row, float, float]]:
    """(row, TPOT error, TTFT error), relative and signed."""
    return [
        (
            row,
            tpot_seconds(efficiency, row.server, row.load) / row.tpot_s - 1,
            ttft_seconds(efficiency, row.server, row.load) / row.ttft_s - 1,
        )
        for row in rows
    ]


def mean(values: Iterable[float]) -> float:
    """Of absolute values."""
    listed = [abs(value) for value in values]
    return sum(listed) / len(listed)


def measure_speed(report: Report, path: Path = MEASURED) -> None:
    """Mean absolute errors per model and GPU, of rows that took no part in the fit."""
    if not path.exists():
        report.leave_out("predicted against measured speed", "no ../shared/perf/silicon_measured.csv beside the repo")
        return
    fit_rows, judge_rows, twice = read_rows(path)
    groups = sorted({row.group for row in fit_rows + judge_rows})
    fits = {group: [row for row in fit_rows if row.group == group] for group in groups}
    judges = {group: [row for row in judge_rows if row.group == group] for group in groups}
    for group in groups:
        if min(len(fits[group]), len(judges[group])) < LEAST_ROWS:
            report.leave_out(group, f"{len(fits[group])} + {len(judges[group])} rows are too few to fit and to judge")
            continue
        judge_group(report, group, fits[group], judges[group])
    if twice:
        report.leave_out(f"{twice} rows", "the file tells them twice")
    dense = [g for g, rows in fits.items() if len(rows) >= LEAST_ROWS and not rows[0].server.shape.is_moe]
    for group in dense:
        others = [row for other in dense if other != group for row in fits[other]]
        measure_unseen(report, group, others, fits[group] + judges[group])


def judge_group(report: Report, group: str, fit_rows: list[Row], judge_rows: list[Row]) -> None:
    """The group's rows of the report. Bounds hold for dense models."""
    judged = errors(fitted(fit_rows), judge_rows)
    dense = not judge_rows[0].server.shape.is_moe
    for key, bound, place in (("tpot_mape", TPOT_MAPE, 1), ("ttft_mape", TTFT_MAPE, 2)):
        found = [(entry[0], entry[place]) for entry in judged]
        worst = max(found, key=lambda entry: abs(entry[1]))
        note = f"{len(fit_rows)} rows fit, {len(judge_rows)} judge; worst {worst[1]:+.0%}: {worst[0]}"
        report.add(group, key, mean(error for _, error in found), note, bound if dense else None)
        worse = [f"{error:+.0%} {row}" for row, error in found if abs(error) > WORSE * bound]
        if worse:
            report.add(group, f"{key}_rows_twice_as_bad", len(worse), "; ".join(worse))


def measure_unseen(report: Report, group: str, others: list[Row], rows: list[Row]) -> None:
    """What the model is worth where nobody has measured yet: by the fit of the other dense groups, and by the prior.

    The prior knows pools only, so it is compared where next to nothing but decoding happens.
    """
    judged = errors(fitted(others), rows)
    note = "fitted on the other dense groups only"
    report.add(group, "unseen_tpot_mape", mean(error for _, error, _ in judged), note)
    report.add(group, "unseen_ttft_mape", mean(error for _, _, error in judged), note)
    decoding = [row for row in rows if row.load.output_tokens >= DECODING * row.load.prompt_tokens]
    if decoding:
        found = [prior_step_seconds(row) / row.tpot_s - 1 for row in decoding]
        bias = sum(found) / len(found)
        note = f"roofline of pools, nothing fitted; {len(decoding)} rows of short prompts, mean {bias:+.0%}"
        report.add(group, "prior_tpot_mape", mean(found), note)


def prior_step_seconds(row: Row) -> float:
    """A decode step of the row's requests, as many as find room."""
    server, load = row.server, row.load
    context = load.prompt_tokens + load.output_tokens // 2
    coefficients = prior(
        server.shape, server.hardware, server.tensor_parallel, server.quantization,
        context_tokens=context, sequences=load.concurrency,
    )  # fmt: skip
    sequences = min(load.concurrency, coefficients.kv_tokens // context)
    return coefficients.step_seconds(sequences, sequences * context)
