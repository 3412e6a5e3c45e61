"""What all pods have in common: security, probes, identity, token, and the user's template override on top."""

from __future__ import annotations

from typing import Any, Final

from tandem_runtime.contracts.names import METRICS_PORT

from tandem_operator.api import names
from tandem_operator.api.spec import Resources
from tandem_operator.config import RenderSettings
from tandem_operator.render.merge import merge
from tandem_operator.render.source import ModelSource

COMMAND: Final = "tandem-runtime"
TOKEN_PATH: Final = "/etc/tandem/token"
TOKEN_FILE: Final = f"{TOKEN_PATH}/token"
KEYS_PATH: Final = "/etc/tandem/keys"
ENDPOINTS_PATH: Final = "/etc/tandem/endpoints"
ENDPOINTS_KEY: Final = "endpoints.json"
ENDPOINTS_FILE: Final = f"{ENDPOINTS_PATH}/{ENDPOINTS_KEY}"

CONTAINER_SECURITY: Final[dict[str, Any]] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
IDENTITY_ENV: Final = [
    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
    {"name": "POD_IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}},
]


class InvalidTemplate(ValueError):
    """The user's template override cannot be merged, or takes away what the operator relies on."""


def pod_security(settings: RenderSettings) -> dict[str, Any]:
    user = settings.user_id
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def probes(settings: RenderSettings, started_when: str) -> dict[str, Any]:
    """`started_when`: the path that ends start-up. Liveness begins after it, so a long load is not taken for a hang."""

    def probe(path: str, period: int, failures: int) -> dict[str, Any]:
        return {
            "httpGet": {"path": path, "port": "metrics", "scheme": "HTTP"},
            "periodSeconds": period,
            "failureThreshold": failures,
            "timeoutSeconds": settings.probe_timeout_seconds,
        }

    starts = -(-settings.startup_limit_seconds // settings.startup_period_seconds)
    return {
        "startupProbe": probe(started_when, settings.startup_period_seconds, starts),
        "readinessProbe": probe("/readyz", settings.readiness_period_seconds, settings.readiness_failures),
        "livenessProbe": probe("/healthz", settings.liveness_period_seconds, settings.liveness_failures),
    }


def thread_env(resources: Resources) -> list[dict[str, Any]]:
    """OMP_NUM_THREADS = CPU limit, rounded up; without a limit torch's own choice (all cores) is right."""
    if "cpu" not in resources.limits:
        return []
    reference = {"resource": "limits.cpu", "divisor": "1"}
    return [{"name": "OMP_NUM_THREADS", "valueFrom": {"resourceFieldRef": reference}}]


def resource_requirements(resources: Resources) -> dict[str, Any]:
    limits = {key: str(value) for key, value in resources.limits.items()}
    requests = {key: str(value) for key, value in resources.requests.items()} or limits
    return {key: value for key, value in (("limits", limits), ("requests", requests)) if value}


def node_loss_tolerations(settings: RenderSettings) -> list[dict[str, Any]]:
    """How long a pod stays bound to a node that answers no more; Kubernetes' own 300 s is long for a serving pod."""
    return [
        {
            "key": f"node.kubernetes.io/{state}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": settings.node_loss_seconds,
        }
        for state in ("not-ready", "unreachable")
    ]


def port(name: str, number: int) -> dict[str, Any]:
    return {"name": name, "containerPort": number, "protocol": "TCP"}


def pod_template(
    labels: dict[str, str],
    image: str,
    arguments: list[str],
    ports: list[dict[str, Any]],
    source: ModelSource | None,
    resources: Resources,
    token_secret: str,
    started_when: str,
    settings: RenderSettings,
) -> dict[str, Any]:
    """Pod template with the container `runtime` and, when there is a model to bring, the init container `fetch`."""
    scratch = {"name": "tmp", "mountPath": "/tmp"}
    token = {"name": "token", "mountPath": TOKEN_PATH, "readOnly": True}
    requirements = resource_requirements(resources)
    container: dict[str, Any] = {
        "name": names.MAIN_CONTAINER,
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": [COMMAND],
        "args": arguments,
        "env": [*IDENTITY_ENV, *thread_env(resources)],
        "ports": [*ports, port("metrics", METRICS_PORT)],
        "resources": requirements,
        "securityContext": CONTAINER_SECURITY,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [scratch, token, *(source.mounts if source else [])],
        **probes(settings, started_when),
    }
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Always",
        "securityContext": pod_security(settings),
        "terminationGracePeriodSeconds": settings.termination_grace_seconds,
        "tolerations": node_loss_tolerations(settings),
        "containers": [container],
        "volumes": [
            {"name": "tmp", "emptyDir": {}},
            {"name": "token", "secret": {"secretName": token_secret, "defaultMode": 0o440}},
            *(source.volumes if source else []),
        ],
    }
    if source:
        spec["initContainers"] = [
            {
                "name": names.FETCH_CONTAINER,
                "image": image,
                "imagePullPolicy": settings.image_pull_policy,
                "command": [COMMAND],
                "args": source.fetch_arguments,
                "resources": requirements,
                "securityContext": CONTAINER_SECURITY,
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [scratch, *source.fetch_mounts],
            }
        ]
    return {"metadata": {"labels": labels}, "spec": spec}


def check_override(override: dict[str, Any], owner: str) -> None:
    """Its shape, as far as this package reads it. Raises InvalidTemplate."""
    where = f"spec.{owner}.template"
    unknown = sorted(set(override) - {"metadata", "spec"})
    if unknown:
        raise InvalidTemplate(f"{where} has unknown fields {unknown}; it takes metadata and spec")
    parts = {name: override.get(name, {}) for name in ("metadata", "spec")}
    if isinstance(parts["metadata"], dict):
        parts["metadata.labels"] = parts["metadata"].get("labels", {})
    for name, part in parts.items():
        if not isinstance(part, dict) or "$patch" in part:
            raise InvalidTemplate(f"{where}.{name} is {part!r}; give an object whose fields are merged into ours")
    reserved = sorted(
        key
        for key in map(str, parts["metadata.labels"])
        if key in names.RESERVED_LABELS or key.startswith("tandem.dev/")
    )
    if reserved:
        raise InvalidTemplate(f"{where}.metadata.labels sets {reserved}, which selectors rely on; choose other keys")


def override_template(template: dict[str, Any], override: dict[str, Any], owner: str) -> dict[str, Any]:
    """`override` (spec.OWNER.template, checked) merged in. Raises InvalidTemplate when the result cannot work."""
    where = f"spec.{owner}.template"
    try:
        merged: dict[str, Any] = merge(template, override)
    except (ValueError, AttributeError, TypeError) as error:
        raise InvalidTemplate(f"{where} cannot be merged: {error}") from error
    _check_kept(template, merged, where)
    if "tolerations" in merged["spec"]:
        merged["spec"]["tolerations"] = _with_ours(
            merged["spec"]["tolerations"], template["spec"]["tolerations"], f"{where}.spec.tolerations"
        )
    return merged


def _with_ours(theirs: Any, ours: list[dict[str, Any]], where: str) -> list[dict[str, Any]]:
    """Who tolerates a GPU taint did not mean to wait longer for lost nodes; who names our keys, or all, did."""
    if not isinstance(theirs, list) or not all(isinstance(item, dict) for item in theirs):
        raise InvalidTemplate(f"{where} is {theirs!r}; give a list of objects, as in a Pod")
    named = [item.get("key") for item in theirs]
    return [*theirs, *(item for item in ours if not any(key in (None, "", item["key"]) for key in named))]


def _check_kept(template: dict[str, Any], merged: dict[str, Any], where: str) -> None:
    """The override may add and tune; what the program is and how it is found stays."""

    def main(pod: dict[str, Any]) -> dict[str, Any]:
        containers = pod["spec"].get("containers")
        if not isinstance(containers, list) or not all(isinstance(item, dict) for item in containers):
            raise InvalidTemplate(
                f"{where}.spec.containers is no list of containers with {names.MAIN_CONTAINER!r} among them"
            )
        found = [c for c in containers if c.get("name") == names.MAIN_CONTAINER]
        if len(found) != 1:
            raise InvalidTemplate(f"{where}.spec.containers removes the container {names.MAIN_CONTAINER!r}; keep it")
        return dict(found[0])

    before, after = main(template), main(merged)
    for name in ("command", "args", "ports"):
        if after.get(name) != before[name]:
            raise InvalidTemplate(
                f"{where} changes {name} of container {names.MAIN_CONTAINER!r}, which the operator sets; remove it"
            )
    if merged["spec"].get("restartPolicy") != "Always":
        raise InvalidTemplate(f"{where}.spec.restartPolicy must be Always: the pods belong to a Deployment")
