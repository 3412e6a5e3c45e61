"""The plan as a table: candidates of both roles, what is out and why, and the choice in a few lines."""

from __future__ import annotations

import sys
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tandem_operator.performance.hardware import GIB
from tandem_operator.performance.quantization import effective
from tandem_operator.placement.candidates import Refusal, Rejection
from tandem_operator.placement.choose import Choice, Survey
from tandem_operator.placement.explain import duration, nearest
from tandem_operator.placement.offers import UNLIMITED_NODES
from tandem_operator.placement.pairs import Pair
from tandem_operator.placement.problem import ROLES, Offer, Problem, Role
from tandem_operator.placement.rank import price_per_hour

ROWS: Final = 8
"""Candidates shown per role; those that follow cost more."""
REASONS: Final = 6
"""Classes that are out and shown with their reason."""
SHOWN_SIZES: Final = 3
"""Kinds of nodes of one class, by what is free, that are told one by one."""
PIPED_WIDTH: Final = 120
WIDE: Final = 100
"""Columns from which the memory is shown term by term."""
HOUR_S: Final = 3600


def show(
    problem: Problem, found: Survey, choice: Choice | Refusal, notes: tuple[str, ...], remarks: list[str],
    console: Console | None = None,
) -> None:  # fmt: skip
    """Prints it; as wide as the terminal, 120 columns into a pipe."""
    console = console or Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)
    _lines(console, _question(problem, notes))
    for role in ROLES:
        console.print()
        _candidates(console, problem, found, role)
    console.print()
    if isinstance(choice, Refusal):
        console.print(Text(f"Nothing that is allowed can work. {choice.reason}", style="bold red"))
        return
    _lines(console, _answer(problem, choice), style="bold")
    for remark in remarks:
        console.print(Text(f"note: {remark}", style="yellow"))


def _lines(console: Console, lines: list[tuple[str, str]], style: str = "") -> None:
    table = Table.grid(padding=(0, 2))
    for name, text in lines:
        table.add_row(Text(name, style="bold"), Text(text, style=style if name == "Choice" else ""))
    console.print(table)


def _question(problem: Problem, notes: tuple[str, ...]) -> list[tuple[str, str]]:
    shape, objective, load = problem.shape, problem.objective, problem.load
    kept = effective(shape, "None")
    stored = "16 bit" if kept == "None" else kept
    rate = f"{load.requests_per_s:g} requests/s" if load.requests_per_s else "any rate (compared per request)"
    return [
        (
            "Model",
            f"{shape.name or shape.architecture or 'of this config'}: {shape.parameters / 1e9:.1f} B parameters"
            + (f" ({shape.active_parameters / 1e9:.1f} B active)" if shape.is_moe else "")
            + f", weights {shape.weight_bytes / GIB:.1f} GiB ({stored}), KV"
            f" {shape.kv_bytes_per_token() / 1024:,.0f} KiB per token, {problem.context_tokens:,} tokens must fit",
        ),
        (
            "Objective",
            f"TTFT {duration(objective.ttft_s)}, TPOT {duration(objective.tpot_s)} for"
            f" {100 * objective.attainment:.3g} % of the requests; predictions must stay within 80 % of them",
        ),
        ("Load", f"{rate} of {load.prompt_tokens:,} prompt and {load.output_tokens:,} answer tokens"),
        ("Fleet", "; ".join([*_fleet(problem), *notes])),
    ]


def _fleet(problem: Problem) -> list[str]:
    endless = [offer.name for offer in problem.offers if offer.free == ((offer.largest_node, UNLIMITED_NODES),)]
    counted = [_count(offer) for offer in problem.offers if offer.name not in endless]
    return [*counted, *([f"as many nodes as wanted of {', '.join(endless)}"] if endless else [])]


def _count(offer: Offer) -> str:
    """Nodes x free devices; of many kinds of nodes the sums."""
    free = [(devices, nodes) for devices, nodes in offer.free if devices and nodes]
    if len(free) > SHOWN_SIZES:
        sums = (
            f"{sum(nodes for _, nodes in free)} nodes, {sum(devices * nodes for devices, nodes in free)} devices free"
        )
        return f"{offer.name} {sums}"
    return f"{offer.name} {' + '.join(f'{nodes} x {devices}' for devices, nodes in free) or 'none free'}"


def _candidates(console: Console, problem: Problem, found: Survey, role: Role) -> None:
    priced = found.unit == "price"
    pairs = ([found.taken, *found.others(problem, role)] if found.taken else [])[: ROWS + 1]
    if pairs:
        table = Table(
            title=f"{role.capitalize()}, cheapest first", title_justify="left", box=None, padding=(0, 1, 0, 0)
        )
        narrow = console.width < WIDE
        headings = [
            "  class", "GPUs", "GiB of" if narrow else "GiB: weights+KV+other of",
            "TTFT" if role == "prefill" else "TPOT", "req/s", "pods",
            "price/h" if priced else "GPUs", "per Mtok" if priced else "per req/s", "bound by",
        ]  # fmt: skip
        for index, heading in enumerate(headings):
            left = index in (0, 1, len(headings) - 1)
            table.add_column(heading, justify="left" if left else "right", no_wrap=True)
        for index, pair in enumerate(pairs[:ROWS]):
            table.add_row(*_row(problem, pair, role, priced, index == 0, narrow), style="bold" if index == 0 else None)
        console.print(table)
    else:
        console.print(Text(role.capitalize(), style="italic"))
    seen = {pair.side(role).offer.name for pair in pairs}
    out = [item for item in nearest(found.rejected(role)) if item.hardware_class not in seen]
    if found.taken is None:
        able = {one.offer.name for contest in found.contests for one in contest.prospects(role).found}
        if able:
            console.print(Text(f"  possible on {', '.join(sorted(able))}, were there a way for the other role"))
        out = [item for item in out if item.hardware_class not in able]
    _reasons(console, out)


def _row(problem: Problem, pair: Pair, role: Role, priced: bool, taken: bool, narrow: bool) -> list[str]:
    one = pair.side(role)
    prefill = role == "prefill"
    rate, pods = (pair.prefill_rate, pair.prefill_replicas) if prefill else (pair.decode_rate, pair.decode_replicas)
    tokens = problem.load.prompt_tokens if prefill else problem.load.output_tokens
    candidate, plan, gpus = one.candidate, one.memory, one.gpus
    other = plan.activations_bytes + plan.collective_bytes + plan.overhead_bytes
    parts = (plan.needed_bytes,) if narrow else (plan.weights_bytes, plan.required_kv_bytes, other)
    memory = "+".join(f"{part * gpus / GIB:,.0f}" for part in parts)
    size = (
        f"{gpus}"
        if candidate.pipeline_parallel == 1
        else f"{candidate.tensor_parallel}x PP{candidate.pipeline_parallel}"
    )
    weights = "" if candidate.quantization == "None" else f" {candidate.quantization}"
    known = one.speed is not None
    hourly = price_per_hour(one, pods) if priced else float(gpus * pods)
    per_replica = price_per_hour(one, 1) if priced else float(gpus)
    served = rate * tokens * HOUR_S / 1e6 if priced else rate  # million tokens per hour, or requests per second
    return [
        f"{'*' if taken else ' '} {candidate.hardware_class}{weights}",
        size,
        f"{memory} of {plan.budget_bytes * gpus / GIB:,.0f}",
        duration(pair.ttft_s if prefill else one.seconds) if known else "?",
        f"{rate:.3g}" if rate else "?",
        f"{pods}" + ("!" if pair.short else ""),
        "?" if hourly is None else f"{hourly:,.2f}" if priced else f"{hourly:g}",
        f"{per_replica / served:,.3g}" if served and per_replica is not None else "?",
        one.bound if known else "unknown speed",
    ]


def _reasons(console: Console, out: list[Rejection]) -> None:
    once: dict[str, Rejection] = {}
    for item in out:
        once.setdefault(item.hardware_class, item)
    table = Table.grid(padding=(0, 2))
    for item in list(once.values())[:REASONS]:
        table.add_row(Text(f"  {item.hardware_class}", style="dim"), Text(item.reason, style="dim"))
    if len(once) > REASONS:
        table.add_row(Text(f"  {len(once) - REASONS} more", style="dim"), Text("classes are out as well", style="dim"))
    if once:
        console.print(table)


def _answer(problem: Problem, choice: Choice) -> list[tuple[str, str]]:
    load = problem.load
    tokens = load.prompt_tokens + load.output_tokens
    cost = choice.cost / ((load.requests_per_s or 1.0) * tokens * HOUR_S) * 1e6
    price = "" if choice.price_per_hour is None else f"{choice.price_per_hour:,.2f} per hour, "
    if choice.cost_unit == "price":
        price += f"{cost:.3g} per million tokens (prompt and answer)"
    else:
        price = f"{sum(choice.role(role).gpus * choice.role(role).replicas for role in ROLES)} devices"
    lines = []
    for role in ROLES:
        pool = choice.role(role)
        pods = "pod" if pool.replicas == 1 else "pods"
        also = f" (or {', '.join(pool.alternatives)})" if pool.alternatives else ""
        lines.append((role.capitalize(), f"{pool.replicas} {pods} of {pool.candidate}{also}: {pool.why}"))
    size = problem.shape.sequence_bytes(load.prompt_tokens) / 1e6
    return [
        *lines,
        (
            "KV link",
            f"{choice.link.kind}: {size:,.0f} MB of one prompt take {duration(choice.link.seconds)} at"
            f" {choice.link.bytes_per_s * 8 / 1e9:,.0f} Gbit/s{_assumption(choice)}",
        ),
        ("Choice", f"TTFT {duration(choice.ttft_s)} without queueing, TPOT {duration(choice.tpot_s)}; {price}"),
        ("Why", choice.why),
    ]


def _assumption(choice: Choice) -> str:
    if choice.link.kind != "assumed network":
        return ""
    return " (say what it is by --network, or in the HardwareClass)"
