"""The step of a look that decides on hardware: what is known of the model and of the pods, then the placer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tandem_runtime.contracts.names import LABEL_ROLE

from tandem_operator.api.conditions import Reason
from tandem_operator.api.deployment import InferenceDeployment
from tandem_operator.placement.problem import ROLES, Problem
from tandem_operator.reconcile.errors import Waiting
from tandem_operator.reconcile.models import Models
from tandem_operator.reconcile.observe import Observed, is_available, label
from tandem_operator.reconcile.placer import Placer
from tandem_operator.reconcile.placing import Placing
from tandem_operator.reconcile.pods import finds_no_node, is_on_a_node
from tandem_operator.reconcile.record import read_record
from tandem_operator.reconcile.wishes import is_asked
from tandem_operator.render.hardware import ANY_NODE

LISTING_SECONDS: Final = 1.0
"""Between looks while nodes are being listed; how long that may go on is a setting of the inventory."""
UNWATCHED: Final = Placing(ANY_NODE, Reason.ANY_NODE, "pods run on any node: this operator does not watch nodes")


class PlacementStep:
    """`is_starting`: nodes are being listed for the first time, so that a plan would be made in the dark."""

    def __init__(
        self, placer: Placer | None, models: Models | None, is_starting: Callable[[], bool] = lambda: False
    ) -> None:
        self._placer = placer
        self._models = models
        self._is_starting = is_starting

    def forget(self, key: tuple[str, str]) -> None:
        if self._placer:
            self._placer.forget(key)

    def pose(self, infd: InferenceDeployment) -> Problem | None:
        """For admission: by what is known now, nobody is asked."""
        if self._placer is None or self._models is None:
            return None
        return self._placer.pose(infd, self._models.told(infd))

    async def take(self, infd: InferenceDeployment, observed: Observed, seen_generation: int = 0) -> Placing:
        """`seen_generation`: of the spec at the last look. Raises Unplaced, and Waiting while nodes are not known yet
        but matter."""
        if self._placer is None or self._models is None:
            return UNWATCHED
        known = await self._models.known(infd)
        matters = known.shape is not None or any(is_asked(getattr(infd.spec, role)) for role in ROLES)
        if matters and self._is_starting():
            raise Waiting("nodes are being listed", LISTING_SECONDS)
        pods = {role: [pod for pod in observed.pods if label(pod, LABEL_ROLE) == role] for role in ROLES}
        settled = [role for role in ROLES if any(map(is_on_a_node, pods[role]))]
        stuck = [role for role in ROLES if any(map(finds_no_node, pods[role]))]
        serves = all(any(map(is_available, observed.deployments(role).values())) for role in ROLES)
        rests = serves and seen_generation == infd.generation
        return self._placer.place(infd, known, read_record(observed), settled, stuck, rests)
