"""A prefill and a decode prospect together: the KV link between them, replicas for the load, and what it costs."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from tandem_operator.performance.hardware import Hardware
from tandem_operator.performance.roofline import LINK_SETUP_S, UNKNOWN_NETWORK_BYTES_PER_S
from tandem_operator.placement.pricing import Pricing
from tandem_operator.placement.problem import Problem, Role
from tandem_operator.placement.prospects import Prospect
from tandem_operator.placement.room import short_of
from tandem_operator.placement.sizing import (
    DECODE_LOAD_LIMIT,
    OBJECTIVE_SHARE,
    decode_replicas,
    prefill_servers,
    prefill_utilization,
)

HANDOFF_SHARE: Final = 0.25
"""Most of the TTFT objective that moving the KV pages may take: it must stay well under it. Nobody is refused for a
link that is only assumed; it counts into the TTFT all the same."""


class KVLink(msgspec.Struct, frozen=True):
    """Between one prefill and one decode replica."""

    kind: Literal["scale-up domain", "network", "assumed network"]
    bytes_per_s: float
    seconds: float
    """For the pages of one prompt, alone on the link."""


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """Both roles, sized."""

    prefill: Prospect
    decode: Prospect
    link: KVLink
    ttft_s: float
    """Without queueing: prompt, hand-off and the first step."""
    prefill_rate: float
    """Requests per second of one replica within the objective; 0: not known."""
    decode_rate: float
    prefill_replicas: int
    decode_replicas: int
    cost: float
    """Per hour: of both pools when the load is known, else of what serves one request per second."""
    short: int
    """Replicas that would find no place now."""

    def side(self, role: Role) -> Prospect:
        return self.prefill if role == "prefill" else self.decode

    @property
    def unknown(self) -> int:
        """Roles whose speed is not known."""
        return (self.prefill.speed is None) + (self.decode.speed is None)

    def key(self) -> tuple[object, ...]:
        """Smaller is better: room, knowledge, cost; then few devices, small groups, classes in use, the name."""
        p, d = self.prefill, self.decode
        return (
            *self.tier,
            float(f"{self.cost:.9g}"),
            p.gpus * self.prefill_replicas + d.gpus * self.decode_replicas,
            p.candidate.tensor_parallel + d.candidate.tensor_parallel,
            -(p.offer.in_use + d.offer.in_use),
            p.candidate,
            d.candidate,
        )

    @property
    def tier(self) -> tuple[int, int]:
        """What comes before any cost."""
        return self.short, self.unknown


def kv_link(prefill: Prospect, decode: Prospect) -> KVLink:
    """The slower end counts. A scale-up domain of many nodes carries pages between replicas of one class."""
    size = prefill.prompt_bytes
    one, other = prefill.hardware, decode.hardware
    domain = one.interconnect
    if one.name == other.name and domain.domain_devices > max(one.devices_per_node, prefill.offer.largest_node):
        rate = domain.bytes_per_s * min(prefill.candidate.tensor_parallel, decode.candidate.tensor_parallel)
        return KVLink("scale-up domain", rate, LINK_SETUP_S + size / rate)
    rate = min(_network(one, prefill.gpus), _network(other, decode.gpus))
    known = one.network_bytes_per_s and other.network_bytes_per_s
    return KVLink("network" if known else "assumed network", rate, LINK_SETUP_S + size / rate)


def _network(hardware: Hardware, gpus: int) -> float:
    """Every device brings its share of the node's ports; of one that does not say, one slow port is assumed,
    however many devices: what is not known must not make larger replicas look better."""
    return hardware.network_bytes_per_s * gpus or UNKNOWN_NETWORK_BYTES_PER_S


def make_pair(problem: Problem, prefill: Prospect, decode: Prospect, pricing: Pricing) -> Pair | str:
    """The pair, or why the two cannot work together."""
    objective, load = problem.objective, problem.load
    link = kv_link(prefill, decode)
    known = prefill.speed is not None and decode.speed is not None
    if link.kind != "assumed network" and link.seconds > HANDOFF_SHARE * objective.ttft_s:
        return (
            f"moving the KV pages of {load.prompt_tokens:,} tokens takes {link.seconds:.2f} s over the {link.kind}"
            f" ({link.bytes_per_s * 8 / 1e9:,.0f} Gbit/s): more than {HANDOFF_SHARE:.0%} of the {objective.ttft_s:g} s"
            " TTFT objective"
        )
    ttft = prefill.seconds + link.seconds + decode.seconds
    slack = OBJECTIVE_SHARE * objective.ttft_s - ttft
    if known and slack < 0:
        return (
            f"TTFT {ttft:.2f} s (prompt {prefill.seconds:.2f} + hand-off {link.seconds:.2f} + first step"
            f" {decode.seconds:.3f}) is above {OBJECTIVE_SHARE * objective.ttft_s:.2f} s"
            f" ({OBJECTIVE_SHARE:.0%} of the objective)"
        )
    prefill_rate, prefill_count = _prefill_size(problem, prefill, link, slack)
    decode_rate, decode_count = _decode_size(problem, decode)
    cost = pricing.of(prefill.hardware) * prefill.gpus * (prefill_count if load.requests_per_s else _per(prefill_rate))
    cost += pricing.of(decode.hardware) * decode.gpus * (decode_count if load.requests_per_s else _per(decode_rate))
    return Pair(
        prefill=prefill, decode=decode, link=link, ttft_s=ttft,
        prefill_rate=prefill_rate, decode_rate=decode_rate,
        prefill_replicas=prefill_count, decode_replicas=decode_count,
        cost=cost, short=_short(prefill, prefill_count, decode, decode_count),
    )  # fmt: skip


def _per(rate: float) -> float:
    """Replicas for one request per second; one where the rate is not known."""
    return 1 / rate if rate else 1.0


def _prefill_size(problem: Problem, prefill: Prospect, link: KVLink, slack: float) -> tuple[float, int]:
    """(requests per second of one replica, replicas). The link carries one prompt's pages after the other."""
    wish, load = problem.prefill, problem.load
    if prefill.speed is None:
        return 0.0, wish.replicas or 1
    stages, miss = prefill.candidate.pipeline_parallel, 1 - problem.objective.attainment
    service = max(prefill.seconds / stages, link.seconds)
    rate = prefill_utilization(round(slack / service, 9), miss) / service
    if wish.replicas or not load.requests_per_s:
        return rate, wish.replicas or 1
    count = prefill_servers(load.requests_per_s * service, round(slack / service, 9), miss)
    return max(rate, load.requests_per_s / count), count  # behind one queue several carry more than each alone


def _decode_size(problem: Problem, decode: Prospect) -> tuple[float, int]:
    """(requests per second of one replica, replicas)."""
    wish, load = problem.decode, problem.load
    if decode.speed is None:
        return 0.0, wish.replicas or 1
    answer_s = decode.seconds * load.output_tokens
    rate = DECODE_LOAD_LIMIT * decode.sequences / answer_s
    if wish.replicas or not load.requests_per_s:
        return rate, wish.replicas or 1
    return rate, decode_replicas(load.requests_per_s, answer_s, decode.sequences, problem.objective.attainment)


def least_cost(problem: Problem, prospect: Prospect, pricing: Pricing) -> float:
    """No pair with this prospect costs less for this role: as if the hand-off and the first step took no time."""
    load, price = problem.load, pricing.of(prospect.hardware) * prospect.gpus
    if prospect.speed is None:
        return 0.0
    if prospect.role == "decode":
        rate, count = _decode_size(problem, prospect)
        return price * (count if load.requests_per_s else _per(rate))
    service = prospect.seconds / prospect.candidate.pipeline_parallel
    slack = round((OBJECTIVE_SHARE * problem.objective.ttft_s - prospect.seconds) / service, 9)
    miss = 1 - problem.objective.attainment
    if load.requests_per_s:
        return price * (problem.prefill.replicas or prefill_servers(load.requests_per_s * service, slack, miss))
    return price * _per(prefill_utilization(slack, miss) / service)


def _short(prefill: Prospect, prefill_count: int, decode: Prospect, decode_count: int) -> int:
    one, other = (prefill.gpus, prefill_count), (decode.gpus, decode_count)
    if prefill.offer.name == decode.offer.name:
        return short_of(prefill.offer.free, (one, other))
    return short_of(prefill.offer.free, (one,)) + short_of(decode.offer.free, (other,))
