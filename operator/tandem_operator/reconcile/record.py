"""What was chosen for the pools, as it stands on them: after a restart of the operator, what runs is known again."""

from __future__ import annotations

from typing import Any

import msgspec
from tandem_runtime.contracts.names import LABEL_REVISION

from tandem_operator.api import names
from tandem_operator.performance.hardware import Quantization
from tandem_operator.placement.candidates import Candidate
from tandem_operator.reconcile.observe import Observed, label, router_revision
from tandem_operator.render.placement import PoolPlacement


class RoleRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One pool: the replica that was chosen, and the words in which the scheduler was told."""

    classes: tuple[str, ...] = ()
    """The chosen one first, then those that will do."""
    asked: tuple[str, ...] = ()
    """hardwareClasses of the spec at that time."""
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    quantization: Quantization = "None"
    resource: str
    devices: int
    terms: tuple[tuple[dict[str, Any], ...], ...] = ()
    """Node selector terms by class."""
    shares_clique: bool = False
    literal: bool = False
    """As the user said, not chosen: it goes when the user takes it back."""

    @property
    def candidate(self) -> Candidate:
        first = self.classes[0] if self.classes else ""
        return Candidate(first, self.tensor_parallel, self.pipeline_parallel, self.quantization)

    @property
    def placement(self) -> PoolPlacement:
        return PoolPlacement(self.resource, self.devices, self.terms, self.shares_clique)


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Both pools; a role that is missing runs on any node."""

    prefill: RoleRecord | None = None
    decode: RoleRecord | None = None
    emulates: bool = False
    """Pods take the speed that was predicted for this choice, from the ConfigMap NAME-coefficients."""

    def role(self, role: str) -> RoleRecord | None:
        return self.prefill if role == "prefill" else self.decode

    @property
    def chosen(self) -> Record:
        """Without what the user said literally."""
        prefill = None if self.prefill is None or self.prefill.literal else self.prefill
        decode = None if self.decode is None or self.decode.literal else self.decode
        return Record(prefill=prefill, decode=decode, emulates=self.emulates and bool(prefill or decode))

    @property
    def quantization(self) -> Quantization:
        """Of both pools: they hold the same weights."""
        return next((one.quantization for one in (self.prefill, self.decode) if one), "None")

    @property
    def text(self) -> str:
        """Empty when there is nothing to say, so that pools without a placement carry nothing."""
        return "" if self == NOWHERE else msgspec.json.encode(self).decode()


NOWHERE = Record()


def read_record(observed: Observed) -> Record | None:
    """Of the pools that take traffic, else of any; None: there are no pools."""
    current = router_revision(observed.router())
    pools = [pool for role in names.POOL_ROLES for pool in observed.deployments(role).values()]
    if not pools:
        return None
    pools.sort(key=lambda pool: label(pool, LABEL_REVISION) != current)
    return decode_record((pools[0]["metadata"].get("annotations") or {}).get(names.ANNOTATION_PLACEMENT, ""))


def decode_record(text: str) -> Record:
    """The opposite of `text`; a spoilt one counts as none."""
    try:
        return msgspec.json.decode(text or "{}", type=Record)
    except msgspec.MsgspecError:
        return NOWHERE
