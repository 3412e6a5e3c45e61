"""Which hardware class a node is: by exact label values, and only if nothing else that the node says contradicts.

Names lie by omission (shared and partitioned devices, twins of other sizes), so memory, compute capability and family
are compared as well, as numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec

from tandem_operator.api.hardware_class import GKE_SLICE_LABELS, LABEL_HARDWARE_CLASS, HardwareClass
from tandem_operator.api.quantity import parse_quantity
from tandem_operator.placement import labels as facts

MEMORY_TOLERANCE: Final = 0.10
"""Between a node's word and the class: drivers keep some 3 %, names count decimal gigabytes (7 %), twins differ by 14 %
and more (16 and 32, 40 and 80, 96 and 144 GB)."""

Verdict = Literal["Recognized", "Unknown", "Contradicted", "Shared", "Partitioned"]


class Recognition(msgspec.Struct, frozen=True, kw_only=True):
    """What one extended resource of a node turned out to be."""

    verdict: Verdict
    resource: str
    devices: int
    product: str
    """How the node names the device."""
    hardware_class: str = ""
    """Only when recognised: the class. Else one that was thought of, or nothing."""
    reason: str = ""
    """When not recognised: why, with the numbers, and what to do."""

    @property
    def recognized(self) -> bool:
        return self.verdict == "Recognized"


class _Candidate(msgspec.Struct, frozen=True, order=True):
    rank: int
    name: str
    label: str
    value: str


class Recognizer:
    """Knows all classes. `recognize` costs the node's labels, not the count of classes."""

    def __init__(self, classes: Iterable[HardwareClass]) -> None:
        self.classes = {one.name: one for one in classes}
        self._memory = {name: float(parse_quantity(one.spec.memory)) for name, one in self.classes.items()}
        self._ways = {name: list(one.ways) for name, one in self.classes.items()}
        self._index: dict[str, dict[str, list[_Candidate]]] = {}
        for name, one in self.classes.items():
            for rank, (label, values) in enumerate(one.ways.items()):
                for value in values:
                    by_value = self._index.setdefault(label, {})
                    by_value.setdefault(value, []).append(_Candidate(rank, name, label, value))
        self.rivals = dict(self._rivals())
        """Classes that never get the nodes of one of their values, since another class claims it and goes first."""
        self.resources = frozenset(one.spec.resource_name for one in self.classes.values())
        self.labels = frozenset(self._index) | facts.KEPT
        """Keys that decide anything: the rest of a node's labels need not be kept."""

    def _rivals(self) -> Iterable[tuple[str, str]]:
        """(name of a class, what is in its way)."""
        for label, by_value in self._index.items():
            for value, candidates in by_value.items():
                first: dict[str, str] = {}
                for one in sorted(candidates):
                    winner = first.setdefault(self.classes[one.name].spec.resource_name, one.name)
                    if winner != one.name:
                        yield one.name, f"{label}={value} is also claimed by class {winner}"

    def recognize(self, labels: Mapping[str, str], allocatable: Mapping[str, int]) -> tuple[Recognition, ...]:
        """One answer per device resource that the node has; none for a node without devices.

        A node that names a class whose resource it does not offer (yet: the device plugin starts) has 0 devices of it.
        """
        candidates = self._candidates(labels)
        offered = {name: count for name, count in allocatable.items() if self.is_device(name) and count > 0}
        for name in dict.fromkeys(self.classes[one.name].spec.resource_name for one in candidates):
            if not offered:
                offered[name] = 0
        return tuple(self._judge(labels, resource, count, candidates) for resource, count in sorted(offered.items()))

    def is_device(self, resource: str) -> bool:
        """Whether a class asks for this resource, or it is known to be an accelerator."""
        return resource in self.resources or facts.is_device(resource)

    def _candidates(self, labels: Mapping[str, str]) -> list[_Candidate]:
        """Classes that the node names, the most telling label first, then by name."""
        found = []
        for label in self._index.keys() & labels.keys():
            for candidate in self._index[label].get(labels[label], ()):
                earlier = self._ways[candidate.name][: candidate.rank]
                if not any(other in labels for other in earlier):
                    found.append(candidate)
        return sorted(found)

    def _judge(
        self, labels: Mapping[str, str], resource: str, devices: int, candidates: list[_Candidate]
    ) -> Recognition:
        product = facts.product(labels) or resource
        first: Recognition | None = None
        for candidate in candidates:
            if self.classes[candidate.name].spec.resource_name != resource:
                continue
            verdict, reason = self._objection(labels, resource, candidate)
            answer = Recognition(
                verdict=verdict,
                resource=resource,
                devices=devices,
                product=product,
                hardware_class=candidate.name,
                reason=reason,
            )
            if answer.recognized:
                return answer
            first = first or answer
        return first or self._stranger(labels, resource, devices, product)

    def _objection(self, labels: Mapping[str, str], resource: str, candidate: _Candidate) -> tuple[Verdict, str]:
        """What speaks against a class that the node names. Who labels by hand knows what they do."""
        if candidate.label == LABEL_HARDWARE_CLASS:
            return "Recognized", ""
        asked = facts.whole_product(candidate.value) != candidate.value or candidate.label in GKE_SLICE_LABELS
        part = "" if asked else facts.part_of_device(labels, resource)
        if part:
            verdict: Verdict = "Shared" if facts.is_shared(labels, resource) else "Partitioned"
            return verdict, self._part_reason(part, candidate.name)
        contradictions = [*self._contradictions(labels, resource, candidate.name)]
        if contradictions:
            said = " and ".join(contradictions)
            return "Contradicted", (
                f"{candidate.label}={candidate.value} names class {candidate.name}, but the node says {said}; make a"
                f" HardwareClass for such nodes and label them {LABEL_HARDWARE_CLASS}: NAME"
            )
        return "Recognized", ""

    def _contradictions(self, labels: Mapping[str, str], resource: str, name: str) -> Iterable[str]:
        spec = self.classes[name].spec
        told = None if resource.startswith(facts.MIG_PREFIX) else facts.memory(labels)
        if told and abs(told / self._memory[name] - 1) > MEMORY_TOLERANCE:
            yield f"memory {told / facts.MIB:.0f} Mi where the class has {self._memory[name] / facts.MIB:.0f} Mi"
        capability = facts.capability(labels)
        want = facts.numbers(spec.limits.compute_capability or "")
        if capability and want and capability != want:
            yield f"compute capability {capability[0]}.{capability[1]} where the class has {want[0]}.{want[1]}"
        family = labels.get(facts.GFD_FAMILY)
        if family and spec.architecture and family != spec.architecture:
            yield f"family {family} where the class is {spec.architecture}"

    def _stranger(self, labels: Mapping[str, str], resource: str, devices: int, product: str) -> Recognition:
        whole = self._candidates({**labels, facts.GFD_PRODUCT: facts.whole_product(product)})
        part = facts.part_of_device(labels, resource)
        verdict: Verdict = "Unknown"
        reason = (
            f"no hardware class matches {product}; create one from the template, or label the nodes"
            f" {LABEL_HARDWARE_CLASS}: NAME of one that fits"
        )
        if part:
            verdict = "Shared" if facts.is_shared(labels, resource) else "Partitioned"
            reason = self._part_reason(part, whole[0].name if whole else product)
        name = whole[0].name if whole and part else ""
        return Recognition(
            verdict=verdict, resource=resource, devices=devices, product=product, hardware_class=name, reason=reason
        )

    @staticmethod
    def _part_reason(part: str, name: str) -> str:
        return (
            f"{part}: not a whole {name}; to use it all the same, make a HardwareClass with the memory of the part"
            " whose match names exactly this value"
        )
