"""From a deployment and the inventory to the hardware of its pools: what is asked, what is known, what is kept.

Pods that stand are left alone: what was chosen is read back from the pools and stays, unless it cannot or is too dear.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from tandem_operator.api import names
from tandem_operator.api.conditions import Reason
from tandem_operator.api.deployment import InferenceDeployment
from tandem_operator.api.hardware_class import HardwareClass, node_selector_terms
from tandem_operator.api.spec import Pool
from tandem_operator.placement.candidates import Refusal
from tandem_operator.placement.catalogue import bundled
from tandem_operator.placement.choose import Choice, Current, RoleChoice, choose
from tandem_operator.placement.inventory import Inventory
from tandem_operator.placement.offers import Offers, unlimited_offer
from tandem_operator.placement.problem import ROLES, Offer, Problem, Role
from tandem_operator.placement.question import problem_of
from tandem_operator.placement.room import after, clamp
from tandem_operator.placement.verdict import assume_nodes
from tandem_operator.reconcile import placement_status
from tandem_operator.reconcile.claims import Claims
from tandem_operator.reconcile.placing import Known, Placing, Unplaced
from tandem_operator.reconcile.record import NOWHERE, Record, RoleRecord
from tandem_operator.reconcile.rendered import coefficients_of, current_of, hardware_of, shares_clique
from tandem_operator.reconcile.tolerations import tolerated_by
from tandem_operator.reconcile.wishes import forgoes_devices, is_asked, same_weights, still_as_asked
from tandem_operator.render.hardware import Hardware

DEFAULT_RESOURCE: Final = "nvidia.com/gpu"
"""Of pods whose class nobody named, in a cluster whose nodes say nothing."""


class Placer:
    """Keeps what is promised to whom, and the last answers; all else comes with each call."""

    def __init__(self, inventory: Inventory, is_ready: Callable[[], bool]) -> None:
        self._inventory = inventory
        self._is_ready = is_ready
        self._offers = Offers()
        self._claims = Claims(inventory)
        self._outcomes: dict[str, tuple[Problem, Current | None, Choice | Refusal]] = {}

    @property
    def is_ready(self) -> bool:
        """Whether nodes, pods and classes have been seen."""
        return self._is_ready()

    def forget(self, key: tuple[str, str]) -> None:
        self._claims.forget("/".join(key))
        self._outcomes.pop("/".join(key), None)

    def pose(self, infd: InferenceDeployment, known: Known) -> Problem | None:
        """The problem that `place` would solve; None: it would not choose."""
        if known.shape is None or not self._is_ready() or forgoes_devices(infd):
            return None
        problem = problem_of(infd.spec, known.shape, self._offers_for(infd))
        sought = any(is_asked(getattr(infd.spec, role)) for role in ROLES)
        return problem if sought or any(offer.largest_node for offer in problem.offers) else None

    def place(
        self, infd: InferenceDeployment, known: Known, record: Record | None, settled: Iterable[Role] = (),
        stuck: Iterable[Role] = (), rests: bool = False,
    ) -> Placing:  # fmt: skip
        """`record`: what the pools carry, None without pools. `settled`: roles with pods on nodes, `stuck`: with pods
        that find none. `rests`: both pools serve, and the spec is as it was at the last look. Raises Unplaced."""
        problem = self.pose(infd, known)
        if problem is None:
            return self._unchosen(infd, known, record)
        if rests and record == NOWHERE and not any(is_asked(getattr(infd.spec, role)) for role in ROLES):
            why = "they serve and are not moved to devices that came since; name hardwareClasses to have them moved"
            return self._anywhere(infd, known, why)
        if not problem.offers:
            raise Unplaced(
                "devices are asked for, but no node has any that a HardwareClass claims; add such nodes, or set"
                " autoscaling.maxNodes of the class whose nodes can be created"
            )
        current = current_of(record, tuple(settled))
        outcome = self._choose(f"{infd.namespace}/{infd.name}", problem, current)
        if isinstance(outcome, Refusal):
            return self._standing(infd, record or NOWHERE, outcome)
        return self._chosen(infd, outcome, record or NOWHERE, frozenset(stuck))

    def _standing(self, infd: InferenceDeployment, record: Record, refusal: Refusal) -> Placing:
        """What was chosen before goes on, if the spec still allows it: nodes went, or an objective became too strict.
        Raises Unplaced."""
        roles = [(getattr(infd.spec, role), record.role(role)) for role in ROLES]
        if not all(one and still_as_asked(one, pool) for pool, one in roles) or not same_weights(infd, record):
            raise Unplaced(refusal.reason, placement_status.refused_roles(refusal))
        kept = self._kept(infd, record, "")
        message = f"{refusal.reason}; what was chosen before stays"
        return dataclasses.replace(kept, reason=Reason.NO_FIT, message=message, holds=False)

    def _choose(self, owner: str, problem: Problem, current: Current | None) -> Choice | Refusal:
        """Again only when something changed that could matter: most nodes that come and go do not."""
        known = self._outcomes.get(owner)
        if known and known[:2] == (problem, current):
            return known[2]
        outcome = choose(problem, current)
        if isinstance(outcome, Refusal):
            outcome = choose(assume_nodes(problem), current)  # for nodes that may come
        self._outcomes[owner] = (problem, current, outcome)
        return outcome

    def _chosen(self, infd: InferenceDeployment, choice: Choice, record: Record, stuck: frozenset[Role]) -> Placing:
        clique = shares_clique(choice)
        coefficients = coefficients_of(choice) if infd.spec.runtime.executor == "Emulated" else {}
        made = Record(
            emulates=bool(coefficients),
            prefill=self._role_record(infd, choice.prefill, "prefill", record, stuck, clique),
            decode=self._role_record(infd, choice.decode, "decode", record, stuck, clique),
        )
        self._claim(infd, made)
        where = "; ".join(f"{role} on {choice.role(role).candidate}" for role in ROLES)
        return Placing(
            hardware=hardware_of(made, coefficients, choice.prefill.candidate.quantization),
            reason=Reason.CHOSEN,
            message=f"{where}; {choice.why}",
            status=placement_status.chosen(choice, made),
            blocked=self._blocked(made),
        )

    def _role_record(
        self, infd: InferenceDeployment, pool: RoleChoice, role: Role, record: Record, stuck: frozenset[Role],
        clique: bool,
    ) -> RoleRecord:  # fmt: skip
        """As it was told to the scheduler before, word for word, while it is the same replica and its pods find nodes:
        a class that learnt a label, or another alternative, is no reason to start healthy pods anew."""
        asked = tuple(getattr(infd.spec, role).hardware_classes)
        old = record.role(role)
        if old and old.candidate == pool.candidate and old.asked == asked and role not in stuck:
            return msgspec.structs.replace(old, literal=False)
        classes = (pool.candidate.hardware_class, *pool.alternatives)
        return RoleRecord(
            classes=classes,
            asked=asked,
            tensor_parallel=pool.candidate.tensor_parallel,
            pipeline_parallel=pool.candidate.pipeline_parallel,
            quantization=pool.candidate.quantization,
            resource=pool.resource,
            devices=pool.gpus,
            terms=tuple(tuple(node_selector_terms(self._classes[name])) for name in classes),
            shares_clique=clique,
        )

    def _unchosen(self, infd: InferenceDeployment, known: Known, record: Record | None) -> Placing:
        """No choice can be made: what the user said literally, else what was chosen before, else any node."""
        why_not = known.why_not or "nodes are not known"
        asked = {role: pool for role in ROLES if is_asked(pool := getattr(infd.spec, role))}
        # The model was known when it was chosen, and will be again.
        before = record.chosen if record and not forgoes_devices(infd) else NOWHERE
        if not asked and before != NOWHERE:
            return self._kept(infd, before, why_not)
        if not asked:
            return self._anywhere(infd, known, self._why_anywhere(infd, known))
        literal = {role: self._literal(infd, role, pool, record) for role, pool in asked.items()}
        made = Record(
            prefill=literal.get("prefill", before.prefill),
            decode=literal.get("decode", before.decode),
            emulates=before.emulates,
        )
        placing = self._kept(infd, made, "")
        return dataclasses.replace(placing, reason=Reason.AS_ASKED, message=f"as the spec says, unchecked: {why_not}")

    def _why_anywhere(self, infd: InferenceDeployment, known: Known) -> str:
        """The first reason that holds."""
        if infd.rounds_on_cpu:
            return "executor Torch runs Int8Dynamic on CPUs alone"
        if forgoes_devices(infd):
            return "gpus is 0"
        if known.shape is None and known.why_not:
            return known.why_not
        if known.shape is None or not self._is_ready():
            return "nodes are not known"
        return "no node has devices that a HardwareClass claims"

    def _anywhere(self, infd: InferenceDeployment, known: Known, why: str) -> Placing:
        self._claim(infd, NOWHERE)
        speed = self._emulated_speed(infd, known)
        return Placing(Hardware(coefficients=speed), Reason.ANY_NODE, f"pods run on the CPU of any node: {why}")

    def _kept(self, infd: InferenceDeployment, record: Record, why_not: str) -> Placing:
        self._claim(infd, record)
        message = f"as chosen before; not planned anew: {why_not}" if why_not else "as chosen before"
        status = placement_status.plain(record, message if why_not else "as the spec says")
        there = {str(role): "" for role in ROLES if record.emulates}
        hardware = hardware_of(record, there, record.quantization)
        return Placing(hardware, Reason.CHOSEN, message, status, blocked=self._blocked(record))

    def _literal(self, infd: InferenceDeployment, role: Role, pool: Pool, record: Record | None) -> RoleRecord:
        """Raises Unplaced for classes that do not exist, or of which no node is large enough."""
        devices = pool.gpus or pool.tensor_parallel or 1
        asked = tuple(pool.hardware_classes)
        classes = [self._class(name, role) for name in asked]
        resources = {one.spec.resource_name for one in classes}
        if len(resources) > 1:
            raise Unplaced(
                f"{role}.hardwareClasses {', '.join(asked)} are asked for as {', '.join(sorted(resources))}, but a pod"
                " takes one kind of device; name classes of one kind"
            )
        sizes = {name: self._inventory.capacity(name).largest_replica for name in asked} if self._is_ready() else {}
        if sizes and 0 < max(sizes.values()) < devices:
            raise Unplaced(
                f"{role}: a pod of {devices} devices fits no single node (the largest of {', '.join(asked)} has"
                f" {max(sizes.values())}); replicas over several nodes are not supported: lower {role}.gpus"
            )
        made = RoleRecord(
            classes=asked,
            asked=asked,
            tensor_parallel=pool.tensor_parallel or devices,
            resource=next(iter(resources), self._usual_resource()),
            devices=devices,
            terms=tuple(tuple(node_selector_terms(one)) for one in classes),
            literal=True,
        )
        old = record.role(role) if record else None
        return old if old and still_as_asked(old, pool) else made

    @property
    def _classes(self) -> dict[str, HardwareClass]:
        """Of the cluster; the bundled ones where it could not be seen."""
        return {**bundled(), **self._inventory.classes} if not self._is_ready() else dict(self._inventory.classes)

    def _class(self, name: str, role: Role) -> HardwareClass:
        if name not in self._classes:
            known = ", ".join(sorted(self._classes)) or "none"
            raise Unplaced(f"{role}.hardwareClasses: there is no HardwareClass {name!r}; there are: {known}")
        return self._classes[name]

    def _usual_resource(self) -> str:
        """The one of which the cluster has most."""
        devices: dict[str, int] = {}
        for name, one in self._inventory.classes.items():
            resource = one.spec.resource_name
            devices[resource] = devices.get(resource, 0) + self._inventory.capacity(name).devices
        return max(sorted(devices), key=lambda name: devices[name], default=DEFAULT_RESOURCE)

    def _offers_for(self, infd: InferenceDeployment) -> tuple[Offer, ...]:
        """Of classes that have nodes, may get some, or are named. What this deployment holds itself counts as free."""
        owner = f"{infd.namespace}/{infd.name}"
        used = self._inventory.used_by(owner)
        pools = [getattr(infd.spec, role) for role in ROLES]
        named = {name for pool in pools for name in pool.hardware_classes}
        replicas = sum(pool.replicas for pool in pools)
        accepts = tolerated_by(pools)
        offers = []
        for name, source in self._inventory.classes.items():
            capacity = self._inventory.capacity(name, without=owner)
            if not capacity.largest_replica and name not in named:
                continue
            if any(group.taints for group in capacity.groups):
                capacity = capacity.only(accepts)
            offer = self._offers.of(source, capacity, in_use=name in used)
            free = clamp(after(offer.free, self._claims.outstanding(name, besides=owner)), replicas)
            offers.append(msgspec.structs.replace(offer, free=free))
        return tuple(offers)

    def _claim(self, infd: InferenceDeployment, record: Record) -> None:
        claims = [
            (one.classes[0], one.devices, getattr(infd.spec, role).replicas)
            for role in ROLES
            if (one := record.role(role)) and one.classes
        ]
        self._claims.put(f"{infd.namespace}/{infd.name}", tuple(claims))

    def _blocked(self, record: Record) -> dict[str, str]:
        told: dict[str, str] = {}
        for role in ROLES:
            one = record.role(role)
            if one is None or not one.classes or not self._is_ready():
                continue
            found = [(name, self._inventory.capacity(name)) for name in one.classes]
            counts = "; ".join(
                f"{name}: {capacity.nodes} nodes, {capacity.free} of {capacity.devices} devices free, of which"
                f" {capacity.fragmentation(one.devices)}"
                for name, capacity in found
            )
            told[role] = (
                f"a pod takes {one.devices} x {one.resource} on one node ({counts}); add such nodes, free devices, or"
                f" allow more classes in {role}.hardwareClasses"
            )
        return told

    def _emulated_speed(self, infd: InferenceDeployment, known: Known) -> dict[str, str]:
        """Without devices, emulated pods of a known model take the speed of the class that the spec names."""
        runtime = infd.spec.runtime
        if runtime.executor != "Emulated" or known.shape is None or runtime.emulated is None:
            return {}
        source = {**bundled(), **self._inventory.classes}.get(runtime.emulated.hardware_class)
        if source is None:
            return {}
        outcome = choose(problem_of(infd.spec, known.shape, (unlimited_offer(source),)))
        if isinstance(outcome, Refusal):
            raise Unplaced(outcome.reason, placement_status.refused_roles(outcome))
        return coefficients_of(outcome)


assert ROLES == names.POOL_ROLES
