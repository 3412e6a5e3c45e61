"""The problem that placement solves for a deployment, from what the cluster has now. The loop and admission ask it."""

from __future__ import annotations

from collections.abc import Callable

from tandem_operator.api.deployment import InferenceDeployment
from tandem_operator.performance.config_fields import ConfigError
from tandem_operator.performance.config_reader import read_shape
from tandem_operator.placement.inventory import Inventory
from tandem_operator.placement.offers import Offers
from tandem_operator.placement.problem import Problem
from tandem_operator.placement.question import problem_of


class Poser:
    """`ready`: whether the inventory is complete; before that nothing is said about hardware."""

    def __init__(self, inventory: Inventory, ready: Callable[[], bool]) -> None:
        self._inventory, self._ready, self._offers = inventory, ready, Offers()

    def pose(self, infd: InferenceDeployment) -> Problem | None:
        """None when the model is not known, or the hardware is not. Raises ValueError about model.config."""
        config = infd.spec.model.config
        if config is None or not self._ready():
            return None
        try:
            shape = read_shape(config, name=infd.model_name)
        except ConfigError as error:
            raise ValueError(f"spec.model.config: {error}") from error
        owner = f"{infd.namespace}/{infd.name}"
        used = self._inventory.used_by(owner)
        offers = tuple(
            self._offers.of(source, self._inventory.capacity(name, without=owner), in_use=name in used)
            for name, source in sorted(self._inventory.classes.items())
        )
        return problem_of(infd.spec, shape, offers)
