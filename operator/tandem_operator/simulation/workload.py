"""Streams of requests in order of arrival. A stream is a pure function of its seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Protocol

from tandem_operator.simulation.arrivals import Rate, arrivals
from tandem_operator.simulation.lengths import Lengths


@dataclass(slots=True)
class Request:
    """One request as a client sends it."""

    arrived_s: float
    prompt_tokens: int
    output_tokens: int
    """At least 1."""
    slo_class: str = ""
    """Empty: the default class."""
    blocks: tuple[int, ...] = ()
    """Names of the prompt's prefix blocks, each `Workload.block_tokens` long; equal names are equal prefixes."""
    cached_tokens: int = 0
    """Prompt tokens that a pod holds already whichever it is; for workloads that tell a hit rate and no blocks."""


class Workload(Protocol):
    """What clients send."""

    @property
    def block_tokens(self) -> int:
        """Length of one prefix block."""

    @property
    def end_s(self) -> float:
        """No request comes after."""

    def requests(self, seed: int) -> Iterator[Request]:
        """In order of arrival, from time 0."""


@dataclass(frozen=True, slots=True)
class Synthetic:
    """Requests made from a rate, the unevenness of its gaps, and a law of lengths."""

    rate: Rate
    lengths: Lengths
    end_s: float
    cv: float = 1.0
    block_tokens: int = 0

    def requests(self, seed: int) -> Iterator[Request]:
        """In order of arrival, from time 0."""
        times, lengths = Random(f"{seed} arrivals"), Random(f"{seed} lengths")
        for t_s in arrivals(self.rate, self.end_s, times, self.cv):
            prompt_tokens, output_tokens = self.lengths.draw(lengths, t_s)
            yield Request(t_s, prompt_tokens, output_tokens)
