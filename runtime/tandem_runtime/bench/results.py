"""What the clients saw, judged by the goodput rule; a table for people and one JSON object."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from tandem_runtime.bench.stream import Exchange
from tandem_runtime.contracts.classes import Classes
from tandem_runtime.contracts.goodput import ClassTotals, End, Times

VOID_LAG_SECONDS: Final = 0.05
"""A generator that is itself that late (p99) measures itself; the run declares itself void."""
OWN_LIMITS: Final = "key_"
"""How reasons begin that say that a key is over its own limits: no fault of the fleet, and left out of goodput."""
SHARES: Final = (0.5, 0.9, 0.99)


class Results:
    """`add` every request once. Latencies count from the moment at which a request was due."""

    def __init__(self, classes: Classes) -> None:
        self.totals = {slo.name: ClassTotals(slo) for slo in classes.all}
        self.statuses: Counter[str] = Counter()
        self.verdicts: Counter[str] = Counter()
        self._classes = classes
        self._ttft: list[float] = []
        self._tpot: list[float] = []
        self._lag: list[float] = []

    def add(self, exchange: Exchange) -> None:
        """One request has ended."""
        due = exchange.due
        slo = self._classes.find(due.request_class) or self._classes.default
        totals = self.totals[slo.name]
        end = end_of(exchange)
        first_s = exchange.first_at - exchange.due_at if exchange.first_at is not None else None
        last_s = exchange.last_at - exchange.due_at if exchange.last_at is not None else None
        times = Times(exchange.output_tokens, first_s, last_s)
        totals.arrive(due.prompt_tokens)
        self.verdicts[totals.finish(due.prompt_tokens, end, times, exchange.ended_at - exchange.due_at).value] += 1
        why = "" if end is End.COMPLETED else exchange.reason or ("cut off" if exchange.status == 200 else "")
        self.statuses[f"{exchange.status} {why}".rstrip()] += 1
        if exchange.sent_at:
            self._lag.append(exchange.sent_at - exchange.due_at)
        if first_s is not None:
            self._ttft.append(first_s)
        if times.tpot_s is not None:
            self._tpot.append(times.tpot_s)

    def as_dict(self, seconds: float, most_open: int) -> dict[str, Any]:
        """Seconds are of the whole run, to the end of the last request."""
        totals = self.totals.values()
        counted, met = sum(each.counted for each in totals), sum(each.met for each in totals)
        completed = sum(each.completed for each in totals)
        arrivals = sum(each.arrivals for each in totals)
        lag = quantiles(self._lag)
        return {
            "benchmark": "load",
            "seconds": seconds,
            "requests": arrivals,
            "requests_per_s": arrivals / seconds if seconds else 0.0,
            "completed": completed,
            "completion": completed / arrivals if arrivals else 1.0,
            "goodput_per_s": met / seconds if seconds else 0.0,
            "attainment": met / counted if counted else 1.0,
            "output_tokens_per_s": sum(each.output_tokens for each in totals) / seconds if seconds else 0.0,
            "ttft_s": quantiles(self._ttft),
            "tpot_s": quantiles(self._tpot),
            "most_open": most_open,
            "send_lag_s": lag,
            "void": lag.get("p99", 0.0) > VOID_LAG_SECONDS,
            "statuses": dict(self.statuses),
            "classes": {
                name: {
                    "requests": each.arrivals,
                    "met": each.met,
                    "missed": each.missed,
                    "shed": each.shed,
                    "failed": each.failed,
                    "attainment": each.attainment,
                    "completion": each.completion,
                }
                for name, each in self.totals.items()
            },
        }


def end_of(exchange: Exchange) -> End:
    """How a request ended, as its client sees it."""
    if exchange.status == 200:
        return End.COMPLETED if exchange.complete else End.FAILED
    if exchange.status in (429, 503):
        return End.REFUSED if exchange.reason.startswith(OWN_LIMITS) else End.SHED
    return End.REFUSED if 400 <= exchange.status < 500 else End.FAILED


def quantiles(values: list[float]) -> dict[str, float]:
    """p50, p90, p99 and the largest; empty without values."""
    if not values:
        return {}
    ordered = sorted(values)
    last = len(ordered) - 1
    return {**{f"p{share * 100:.0f}": ordered[round(share * last)] for share in SHARES}, "max": ordered[last]}


def table(result: dict[str, Any]) -> str:
    """For people."""
    lines = [
        f"{result['requests']} requests in {result['seconds']:.1f} s ({result['requests_per_s']:.1f}/s), "
        f"at most {result['most_open']} at once",
        f"goodput {result['goodput_per_s']:.2f}/s, attainment {result['attainment']:.2%}, "
        f"completed {result['completion']:.2%}, {result['output_tokens_per_s']:.0f} output tokens/s",
        "",
        f"{'':<12}{'p50':>10}{'p90':>10}{'p99':>10}{'max':>10}",
    ]
    for name, key in (("TTFT", "ttft_s"), ("TPOT", "tpot_s"), ("sent late by", "send_lag_s")):
        cells = "".join(f"{1000 * value:>8.1f}ms" for value in result[key].values())
        lines.append(f"{name:<12}{cells}")
    lines += ["", f"{'class':<16}{'requests':>10}{'met':>10}{'missed':>10}{'shed':>10}{'failed':>10}{'attained':>10}"]
    for name, each in result["classes"].items():
        counts = "".join(f"{each[key]:>10}" for key in ("requests", "met", "missed", "shed", "failed"))
        lines.append(f"{name:<16}{counts}{each['attainment']:>10.2%}")
    lines += ["", "  ".join(f"{status}: {count}" for status, count in sorted(result["statuses"].items()))]
    if result["void"]:
        lines.append(f"VOID: requests left more than {1000 * VOID_LAG_SECONDS:.0f} ms late; this machine is too busy")
    return "\n".join(lines)
