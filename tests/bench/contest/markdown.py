"""The tables of autoscaler.md, from the figures of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from tests.bench.contest.figures import HEADS, cells, ratio
from tests.bench.contest.plan import BEST, ORACLES
from tests.bench.contest.rows import Row, Table
from tests.bench.contest.targets import check

DETAILED: Final = (*ORACLES, "oracle-startup", "tandem", *BEST)
"""Policies of which every figure is told; of the others attainment and cost."""


def markdown(table: Table, ablations: bool) -> str:
    """All of them, in the order in which they are read."""
    parts = [_losses(table)] if ablations else [_details(table), _matrix(table), _targets(table), _ahead(table)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _details(table: Table) -> str:
    rows = []
    for scenario, figures in table.items():
        known = [(name, row) for name, row in figures.items() if name in DETAILED]
        for name, row in sorted(known, key=lambda item: (-item[1]["attainment"], item[1]["gpu_h"])):
            rows.append((scenario, _named(name), *cells(row)))
    return _table(("scenario", "policy", *HEADS), rows)


def _matrix(table: Table) -> str:
    """Who attained what at which cost: a policy a line, a scenario a column."""
    policies = dict.fromkeys(name for figures in table.values() for name in figures)
    ours = [name for name in policies if name == "tandem"]
    order = [*ours, *(name for name in policies if not name.startswith(("tandem", "oracle")))]
    rows = []
    for name in order:
        found = (figures.get(name) for figures in table.values())
        rows.append([_named(name), *(_cell(row) for row in found)])
    return _table(["policy", *table], rows)


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    ahead = " (ahead)" if row.get("beats_tandem") else ""
    return f"{row['attainment']:.1%}, {ratio(row['gpu_h_over_o1'])}{ahead}"


def _targets(table: Table) -> str:
    rows = []
    for one in check(table):
        sign = ">=" if one.target.at_least else "<="
        value = "never" if one.value is None else f"{one.value:.4g}"
        met = "met" if one.met else "NOT met"
        rows.append((one.target.scenario, one.target.what, f"{sign} {one.target.limit:g}", value, met))
    return _table(("scenario", "target", "asked for", "measured", ""), rows) if rows else ""


def _ahead(table: Table) -> str:
    """Every row in which somebody is ahead of us."""
    found = [
        f"- {scenario}: {_named(name)} {row['beats_tandem']}."
        for scenario, figures in table.items()
        for name, row in figures.items()
        if row.get("beats_tandem")
    ]
    return "\n".join(found)


def _losses(table: Table) -> str:
    """What is lost without each mechanism, where it was left out."""
    left_out = dict.fromkeys(name for figures in table.values() for name in figures if name.startswith("tandem-no-"))
    scenarios = [name for name, figures in table.items() if any(policy in left_out for policy in figures)]
    rows = []
    for name in left_out:
        losses = [_loss(table[scenario].get(name), table[scenario].get("tandem")) for scenario in scenarios]
        rows.append((name.removeprefix("tandem-no-"), *losses))
    return _table(("without", *scenarios), rows)


def _loss(row: Row | None, ours: Row | None) -> str:
    if row is None or ours is None:
        return ""
    points = 100 * (row["attainment"] - ours["attainment"])
    factor = row["gpu_h"] / ours["gpu_h"]
    return "=" if points == 0 and factor == 1 else f"{points:+.2f}, {factor:.2f}x"


def _named(policy: str) -> str:
    return policy if policy == "tandem" else f"`{policy}`"
