"""What a spec says about hardware, and whether what was chosen before is still within it. Pure."""

from __future__ import annotations

from tandem_operator.api.deployment import InferenceDeployment
from tandem_operator.api.spec import Pool
from tandem_operator.placement.problem import ROLES
from tandem_operator.reconcile.record import Record, RoleRecord


def is_asked(pool: Pool) -> bool:
    return bool(pool.gpus or pool.tensor_parallel or pool.hardware_classes)


def forgoes_devices(infd: InferenceDeployment) -> bool:
    """Whether a pool shall have no devices: then nothing is chosen for the other either."""
    return infd.rounds_on_cpu or any(getattr(infd.spec, role).gpus == 0 for role in ROLES)


def still_as_asked(old: RoleRecord, pool: Pool) -> bool:
    return (
        old.asked == tuple(pool.hardware_classes)
        and pool.gpus in (None, old.devices)
        and pool.tensor_parallel in (None, old.tensor_parallel)
    )


def same_weights(infd: InferenceDeployment, record: Record) -> bool:
    held = {one.quantization for role in ROLES if (one := record.role(role))}
    return infd.spec.model.quantization == "Auto" or held == {infd.spec.model.quantization}
