"""The Deployments: router, prefill pool, decode pool."""

from __future__ import annotations

import json
from typing import Any

from tandem_runtime.contracts.names import HTTP_PORT, INTERNAL_PORT, KV_PORT, METRICS_PORT

from tandem_operator.api import names
from tandem_operator.api.deployment import InferenceDeployment
from tandem_operator.api.spec import Emulated, Pool
from tandem_operator.config import RenderSettings
from tandem_operator.render.classes import CLASSES_FILE
from tandem_operator.render.hardware import ANY_NODE, Hardware, add_coefficients, coefficients_file
from tandem_operator.render.placement import place, queue_label
from tandem_operator.render.pods import (
    ENDPOINTS_FILE,
    ENDPOINTS_PATH,
    KEYS_PATH,
    TOKEN_FILE,
    InvalidTemplate,
    check_override,
    override_template,
    pod_template,
    port,
)
from tandem_operator.render.source import ModelSource, model_source


def router_deployment(infd: InferenceDeployment, revision: str, image: str, settings: RenderSettings) -> dict[str, Any]:
    """`NAME-router`: keeps its name through revisions, so that its Service never lacks endpoints."""
    spec = infd.spec.router
    check_override(spec.template, "router")
    source = _source(infd, tokenizer_only=True)
    grace = grace_seconds(spec.template, "router", settings)
    linger = min(settings.router_linger_seconds, grace // 2)
    arguments = [
        "router",
        "--endpoints", ENDPOINTS_FILE,
        "--model-name", infd.model_name,
        *_model_arguments(infd, source),
        "--revision", revision,
        "--token-file", TOKEN_FILE,
        "--wait-for-pods", spec.wait_for_pods,
        "--http-port", str(HTTP_PORT),
        "--metrics-port", str(METRICS_PORT),
        "--drain-timeout", drain_timeout(grace - linger, settings),
        *(["--classes", CLASSES_FILE] if infd.spec.slo else []),
        *(["--api-keys", KEYS_PATH] if spec.api_keys_secret else []),
    ]  # fmt: skip
    template = pod_template(
        labels=names.pod_labels(infd.name, "router", revision),
        image=image,
        arguments=arguments,
        ports=[port("http", HTTP_PORT)],
        source=source,
        resources=spec.resources,
        token_secret=names.token_name(infd.name),
        started_when="/healthz",  # a router without model pods has started; it waits for them
        settings=settings,
    )
    template["spec"]["terminationGracePeriodSeconds"] = settings.router_grace_seconds
    container = template["spec"]["containers"][0]
    container["volumeMounts"].append({"name": "endpoints", "mountPath": ENDPOINTS_PATH, "readOnly": True})
    if linger:  # the API server refuses a sleep of 0 s
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": linger}}}
    template["spec"]["volumes"].append({"name": "endpoints", "configMap": {"name": names.endpoints_name(infd.name)}})
    if spec.api_keys_secret:
        mount_keys(template, spec.api_keys_secret.name)
    return deployment(
        infd,
        name=names.router_name(infd.name),
        role="router",
        revision=revision,
        selector=names.selector_labels(infd.name, "router"),
        replicas=spec.replicas,
        template=override_template(template, spec.template, "router"),
        annotations={},
    )


def pool_deployment(
    infd: InferenceDeployment,
    role: str,
    revision: str,
    image: str,
    settings: RenderSettings,
    hardware: Hardware = ANY_NODE,
) -> dict[str, Any]:
    """`NAME-ROLE-REVISION`: a revision never changes what its pods compute, so two of them can stand side by side."""
    pool: Pool = getattr(infd.spec, role)
    check_override(pool.template, role)
    source = _source(infd, tokenizer_only=False)
    arguments = [
        role,
        *_model_arguments(infd, source),
        *_executor_arguments(infd, role, hardware),
        "--pod-name", "$(POD_NAME)",
        "--address", "$(POD_IP)",
        "--revision", revision,
        "--token-file", TOKEN_FILE,
        "--internal-port", str(INTERNAL_PORT),
        "--kv-port", str(KV_PORT),
        "--metrics-port", str(METRICS_PORT),
        "--drain-timeout", drain_timeout(grace_seconds(pool.template, role, settings), settings),
    ]  # fmt: skip
    # Of both pools: a prefill pod may be told to become a decode pod. Every revision answers there; pods that do not
    # match reject each other, and those of another role are left out.
    arguments += ["--prefill-peer", f"{names.pool_service_name(infd.name, 'prefill')}:{KV_PORT}"]
    if role == "decode" and (speculation := infd.spec.runtime.speculation):
        arguments += ["--speculate", f"ngram:{speculation.draft_tokens}"]
    template = pod_template(
        labels=names.pod_labels(infd.name, role, revision),
        image=image,
        arguments=arguments,
        ports=[port("internal", INTERNAL_PORT), port("kv", KV_PORT)],
        source=source,
        resources=pool.resources,
        token_secret=names.token_name(infd.name),
        started_when="/readyz",
        settings=settings,
    )
    if role in hardware.coefficients:
        add_coefficients(template, infd.name)
    if placement := hardware.placements.get(role):
        template = place(template, placement, infd.name, role, revision)
    queue = queue_label(infd.labels)
    template["metadata"]["labels"] |= queue
    inputs = json.dumps(infd.revision_inputs(image, hardware.quantization), sort_keys=True)
    record = {names.ANNOTATION_PLACEMENT: hardware.record} if hardware.record else {}
    pool_object = deployment(
        infd,
        name=names.pool_name(infd.name, role, revision),
        role=role,
        revision=revision,
        selector=names.selector_labels(infd.name, role, revision),
        replicas=pool.replicas,
        template=override_template(template, pool.template, role),
        annotations={names.ANNOTATION_REVISION_INPUTS: inputs, **record},
    )
    pool_object["metadata"]["labels"] |= queue
    return pool_object


def mount_keys(template: dict[str, Any], secret: str) -> None:
    """`optional`: without the Secret the kubelet would hold the pod back, and say why only in an Event. So the router
    starts, lets nobody in, and ends with a message in the pod's status: the operator needs no right to read Secrets."""
    mount = {"name": "keys", "mountPath": KEYS_PATH, "readOnly": True}
    template["spec"]["containers"][0]["volumeMounts"].append(mount)
    source = {"secretName": secret, "defaultMode": 0o440, "optional": True}
    template["spec"]["volumes"].append({"name": "keys", "secret": source})


def grace_seconds(override: dict[str, Any], owner: str, settings: RenderSettings) -> int:
    """From SIGTERM, or from the preStop hook where there is one, to SIGKILL. Raises InvalidTemplate."""
    given = override.get("spec", {}).get("terminationGracePeriodSeconds")
    if given is None:
        return settings.router_grace_seconds if owner == "router" else settings.termination_grace_seconds
    if not isinstance(given, int) or given < 0:
        raise InvalidTemplate(
            f"spec.{owner}.template.spec.terminationGracePeriodSeconds is {given!r}; give whole seconds, 0 or more"
        )
    return given


def drain_timeout(grace: int, settings: RenderSettings) -> str:
    """For `grace` seconds from SIGTERM to SIGKILL."""
    return f"{max(grace - settings.drain_margin_seconds, 1)}s"


def _source(infd: InferenceDeployment, tokenizer_only: bool) -> ModelSource | None:
    uri = infd.spec.model.uri
    return model_source(uri, tokenizer_only) if uri and infd.spec.runtime.executor == "Torch" else None


def _model_arguments(infd: InferenceDeployment, source: ModelSource | None) -> list[str]:
    arguments = ["--model", source.path] if source else []
    limit = infd.spec.model.max_context_tokens
    return [*arguments, "--max-context-tokens", str(limit)] if limit else arguments


def _executor_arguments(infd: InferenceDeployment, role: str, hardware: Hardware) -> list[str]:
    runtime = infd.spec.runtime
    if runtime.executor == "Torch":
        return ["--executor", "torch", *(["--quantization", "int8-dynamic"] if infd.rounds_on_cpu else [])]
    if role in hardware.coefficients:
        return ["--executor", "emulated", "--coefficients", coefficients_file(role)]
    return ["--executor", "emulated", "--coefficients", (runtime.emulated or Emulated()).hardware_class]


def deployment(
    infd: InferenceDeployment,
    name: str,
    role: str,
    revision: str,
    selector: dict[str, str],
    replicas: int,
    template: dict[str, Any],
    annotations: dict[str, str],
) -> dict[str, Any]:
    """A Deployment that starts the new pod before it stops the old one."""
    labels = names.common_labels(infd.name) | names.selector_labels(infd.name, role, revision)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(infd, name, labels, annotations),
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": selector},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": template,
        },
    }


def metadata(
    infd: InferenceDeployment, name: str, labels: dict[str, str], annotations: dict[str, str] | None = None
) -> dict[str, Any]:
    """Metadata of a child: it belongs to the InferenceDeployment and is collected with it."""
    owner = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": infd.name,
        "uid": infd.uid,
        "controller": True,
        "blockOwnerDeletion": False,  # true would need a right on the owner's finalizers and gains nothing here
    }
    rendered: dict[str, Any] = {"name": name, "namespace": infd.namespace, "labels": labels, "ownerReferences": [owner]}
    return rendered | {"annotations": annotations} if annotations else rendered
