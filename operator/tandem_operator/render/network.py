"""Services, and what pods read from files: who the others are, the token, how fast an emulated pod is."""

from __future__ import annotations

import json
from typing import Any

from tandem_runtime.contracts.names import HTTP_PORT, INTERNAL_PORT, KV_PORT, METRICS_PORT

from tandem_operator.api import names
from tandem_operator.api.deployment import InferenceDeployment
from tandem_operator.render.classes import classes_data
from tandem_operator.render.hardware import Hardware, coefficients_data
from tandem_operator.render.pods import ENDPOINTS_KEY
from tandem_operator.render.workloads import metadata


def client_service(infd: InferenceDeployment) -> dict[str, Any]:
    """`NAME`: the OpenAI API, answered by the routers."""
    return _service(infd, infd.name, "router", [_port("http", HTTP_PORT)], {"type": "ClusterIP"})


def pool_service(infd: InferenceDeployment, role: str) -> dict[str, Any]:
    """Headless, every revision, also pods that are not ready: who is ready is said in their hello."""
    ports = [_port("internal", INTERNAL_PORT), _port("kv", KV_PORT), _port("metrics", METRICS_PORT)]
    return _service(
        infd,
        names.pool_service_name(infd.name, role),
        role,
        ports,
        {"type": "ClusterIP", "clusterIP": "None", "publishNotReadyAddresses": True},
    )


def endpoints(infd: InferenceDeployment) -> dict[str, Any]:
    """`NAME-endpoints`, what routers read: names of Services, no addresses, so that it never changes while pods come
    and go; and the service classes, so that an edit of spec.slo restarts no router."""
    services = [{"service": names.pool_service_name(infd.name, role), "role": role} for role in names.POOL_ROLES]
    routers = infd.spec.router.replicas  # limits of API keys are shared by so many, until pods tell how many there are
    content = json.dumps({"schema": 1, "pods": [], "services": services, "routers": routers}, indent=1) + "\n"
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(infd, names.endpoints_name(infd.name), names.common_labels(infd.name)),
        "data": {ENDPOINTS_KEY: content, **classes_data(infd.spec.slo)},
    }


def coefficients(infd: InferenceDeployment, hardware: Hardware) -> dict[str, Any]:
    """`NAME-coefficients`: how fast emulated pods are, by role."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(infd, names.coefficients_name(infd.name), names.common_labels(infd.name)),
        "data": coefficients_data(hardware),
    }


def token_secret(infd: InferenceDeployment, token: str, prefix_key: str) -> dict[str, Any]:
    """`NAME-token`: what pods of this deployment know each other by, and the key of their prefix hashes."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(infd, names.token_name(infd.name), names.common_labels(infd.name)),
        "type": "Opaque",
        "stringData": {"token": token, "prefix-key": prefix_key},
    }


def client_url(name: str, namespace: str) -> str:
    return f"http://{name}.{namespace}.svc:{HTTP_PORT}/v1"


def _port(name: str, number: int) -> dict[str, Any]:
    return {"name": name, "port": number, "protocol": "TCP", "targetPort": name}


def _service(
    infd: InferenceDeployment, name: str, role: str, ports: list[dict[str, Any]], more: dict[str, Any]
) -> dict[str, Any]:
    labels = names.common_labels(infd.name)
    spec = {**more, "selector": names.selector_labels(infd.name, role), "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata(infd, name, labels), "spec": spec}
