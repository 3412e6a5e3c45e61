"""How good the choice is against exhaustive search, and how fast a whole cluster is planned anew."""

from __future__ import annotations

import itertools
import time
from typing import Any, Final

from tandem_operator.api.deployment import InferenceDeployment, parse_deployment
from tandem_operator.performance.config_reader import read_shape
from tandem_operator.placement.catalogue import bundled
from tandem_operator.placement.choose import Choice, choose
from tandem_operator.placement.facts import NodeFacts
from tandem_operator.placement.inventory import Inventory
from tandem_operator.reconcile.placer import Placer
from tandem_operator.reconcile.placing import Known, Placing, Unplaced
from tandem_operator.reconcile.record import Record, decode_record

from tests.bench.report import Report
from tests.operator.performance import public_models
from tests.operator.placement.exhaustive import random_problem, search

CASES: Final = 500
QUICK_CASES: Final = 100
WORST_EXCESS: Final = 0.03
NODES: Final = 1000
DEPLOYMENTS: Final = 200
REPLAN_SECONDS: Final = 1.0
REPEATS: Final = 5
CLASSES: Final = ("h100-sxm", "h200-sxm", "a100-sxm4-80gb", "l40s", "l4", "b200-sxm", "h100-pcie", "a10g")


def measure_choice(report: Report, quick: bool) -> None:
    """Excess cost over the best pair that brute force finds with the same predictor."""
    wanted = QUICK_CASES if quick else CASES
    excesses: list[float] = []
    unsolved, seconds = 0, 0.0
    for seed in itertools.count():
        if len(excesses) == wanted:
            break
        problem = random_problem(seed)
        want = search(problem)
        started = time.perf_counter()
        got = choose(problem)
        seconds += time.perf_counter() - started
        if want is None and not isinstance(got, Choice):
            unsolved += 1
        elif want is None or not isinstance(got, Choice) or got.short != want.short:
            excesses.append(float("inf"))  # one finds a way, or room, where the other finds none
        else:
            excesses.append(max(0.0, got.cost / want.cost - 1))
    report.add("choice", "cases", wanted, f"model x objective x fleet; both refuse {unsolved} more")
    report.add("choice", "worst_excess_cost", max(excesses), "against exhaustive search", WORST_EXCESS)
    report.add("choice", "mean_excess_cost", sum(excesses) / wanted)
    report.add("choice", "choose_seconds", seconds / (wanted + unsolved), "mean of one choice, nothing cached")


def measure_replan(report: Report) -> None:
    """A node changes, and every deployment is planned anew from the inventory, with what runs known and kept."""
    inventory = Inventory(bundled().values())
    for number, name in zip(range(NODES), itertools.cycle(CLASSES), strict=False):
        label = bundled()[name].spec.match[0]
        devices = (8, 4, 2)[number % 3]
        node = NodeFacts(name=f"n{number}", labels={label.label: label.values[0]}, devices={"nvidia.com/gpu": devices})
        inventory.put_node(node)
    models = _models()
    fleet = [_deployment(number, models) for number in range(DEPLOYMENTS)]
    placer = Placer(inventory, lambda: True)
    records: list[Record | None] = [None] * DEPLOYMENTS
    started = time.perf_counter()
    first = [_place(placer, infd, known, None) for infd, known in fleet]
    report.add("replan", "first_plan_seconds", time.perf_counter() - started, f"{DEPLOYMENTS} new deployments")
    records = [_record(placing) for placing in first]
    placed = sum(record is not None for record in records)
    report.add("replan", "deployments_placed", placed, f"of {DEPLOYMENTS} on {NODES} nodes of {len(CLASSES)} classes")
    times, work, moved = [], [], 0
    for repeat in range(REPEATS):
        inventory.remove_node(f"n{repeat}")
        started, worked = time.perf_counter(), time.process_time()
        again = [_place(placer, infd, known, old) for (infd, known), old in zip(fleet, records, strict=True)]
        times.append(time.perf_counter() - started)
        work.append(time.process_time() - worked)
        moved += sum(_record(new) != old for new, old in zip(again, records, strict=True))
    what = f"worst of {REPEATS}, after a node went; the first knows no earlier answer"
    report.add("replan", "replan_work_seconds", max(work), f"{what}; of one core", REPLAN_SECONDS)
    report.add("replan", "replan_seconds", max(times), "the same on the clock, with all else that this machine does")
    report.add("replan", "replan_again_seconds", min(work), "best: a node went that makes no difference to most")
    report.add("replan", "plans_changed", moved, f"of {REPEATS * DEPLOYMENTS}, by nodes that went from 125 to a class")


def _models() -> list[dict[str, Any]]:
    tables = (value for value in vars(public_models).values() if isinstance(value, dict) and "Llama-3.1-8B" in value)
    return [model.config for model in next(tables).values()]


def _deployment(number: int, models: list[dict[str, Any]]) -> tuple[InferenceDeployment, Known]:
    config = models[number % len(models)]
    body = {
        "metadata": {"name": f"d{number}", "namespace": "bench"},
        "spec": {
            "model": {"config": config, "maxContextTokens": 4096 * (1 + number % 3)},
            "runtime": {"executor": "Emulated"},
            "slo": [{"class": "c", "ttft": {"base": f"{1 + number % 4}s"}, "tpot": f"{40 + 20 * (number % 3)}ms"}],
            "decode": {"replicas": 1 + number % 3},
        },
    }
    return parse_deployment(body), Known(read_shape(config, name=f"model-{number % len(models)}"))


def _place(placer: Placer, infd: InferenceDeployment, known: Known, record: Record | None) -> Placing | None:
    try:
        return placer.place(infd, known, record, ("prefill", "decode") if record else ())
    except Unplaced:
        return None


def _record(placing: Placing | None) -> Record | None:
    return decode_record(placing.hardware.record) if placing else None
