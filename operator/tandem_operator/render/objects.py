"""Everything one InferenceDeployment consists of, for a given choice of revision."""

from __future__ import annotations

from typing import Any

from tandem_operator.api import names
from tandem_operator.api.deployment import InferenceDeployment
from tandem_operator.config import RenderSettings
from tandem_operator.render.hardware import ANY_NODE, Hardware
from tandem_operator.render.network import client_service, coefficients, endpoints, pool_service
from tandem_operator.render.workloads import pool_deployment, router_deployment


def render(
    infd: InferenceDeployment,
    revision: str,
    image: str,
    settings: RenderSettings,
    with_router: bool = True,
    hardware: Hardware = ANY_NODE,
) -> list[dict[str, Any]]:
    """Objects in the order in which they are applied: what others need first. The Secret is made once, elsewhere.

    `with_router=False` while the router still belongs to an older revision. Raises InvalidTemplate or ValueError.
    """
    objects = [endpoints(infd), client_service(infd)]
    objects += [coefficients(infd, hardware)] if any(hardware.coefficients.values()) else []
    objects += [pool_service(infd, role) for role in names.POOL_ROLES]
    objects += [pool_deployment(infd, role, revision, image, settings, hardware) for role in names.POOL_ROLES]
    router = router_deployment(infd, revision, image, settings)
    return [*objects, router] if with_router else objects
