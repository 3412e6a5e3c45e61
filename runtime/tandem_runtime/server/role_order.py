"""POST /role on a pod's metrics port: {"role": "decode", "incarnation": ID, "grace_s": 2}, with the deployment's token.

202 while the pod changes, 200 when it has that role; ask again, or read /signals, for the end. It names the incarnation
that it is about, so that an order which comes late, or twice, turns no pod that was turned since.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tandem_runtime.contracts.token_file import TokenSource
from tandem_runtime.server.flip import Flipping, FlipRefused
from tandem_runtime.server.pod import Pod
from tandem_runtime.telemetry.http import Answer, Order, OrderRoute, as_json, refuse_stranger, text

LONGEST_GRACE_SECONDS: Final = 1e6


class RoleOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of /role."""

    role: str
    incarnation: str
    grace_s: float | None = None
    """For what runs to finish here; then it goes on elsewhere. None: as long as at SIGTERM."""


class RoleCall:
    """`flipping` comes when the model is loaded."""

    def __init__(self, token: TokenSource) -> None:
        self.flipping: Flipping | None = None
        self.pod: Pod | None = None
        self._token = token

    def attach(self, pod: Pod, flipping: Flipping) -> None:
        """Orders are obeyed from now on."""
        self.pod, self.flipping = pod, flipping

    def routes(self) -> dict[str, OrderRoute]:
        """For the metrics port."""
        return {"/role": self.obey}

    def obey(self, order: Order) -> Answer:
        """Answers at once."""
        if (refused := refuse_stranger(order, self._token())) is not None:
            return refused
        try:
            wanted = msgspec.json.decode(order.body, type=RoleOrder)
        except msgspec.DecodeError as error:
            return text(400, f'not {{"role": "prefill" or "decode", "incarnation": ID}}: {error}')
        if wanted.grace_s is not None and not 0 <= wanted.grace_s <= LONGEST_GRACE_SECONDS:
            return text(400, f"grace_s is {wanted.grace_s}; expected are 0 to 1,000,000")
        if self.pod is None or self.flipping is None:
            return text(503, "the model is loading")
        try:
            flip = self.flipping.order(wanted.role, wanted.incarnation, wanted.grace_s)
        except FlipRefused as refusal:
            return text(refusal.status, str(refusal))
        identity = self.pod.identity
        account: dict[str, Any] = {
            "pod": identity.pod,
            "role": identity.role,
            "incarnation": identity.incarnation,
            "becoming": self.pod.becoming,
            "flip": flip.as_dict(self.pod.clock()) if flip is not None else None,
        }
        return as_json(account, 202 if self.flipping.under_way else 200)
