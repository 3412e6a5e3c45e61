"""Where real pods get their model from, and what a person reads when something is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import uuid4

import pytest

from e2e.cases import model_server
from e2e.cases.manifests import claim, node_disk, node_volume, program_pod, real, service
from e2e.stack import Stack, stream_chat, wait_until

FILL = 'import shutil; shutil.copytree("/models/tiny", "/claim/family/tiny")'
KEEP_FOLDER = """
import pathlib, shutil, signal
folder = pathlib.Path("/disk/{name}")
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
folder.mkdir()
signal.sigwait([signal.SIGTERM])
shutil.rmtree(folder)
"""


@pytest.fixture(scope="module")
def server(stack: Stack, shared_namespace: str) -> str:
    """Base URL of the pod that serves models, ready."""
    program = Path(model_server.__file__).read_text()
    stack.apply(program_pod("models", program), shared_namespace)
    stack.apply(service("models", model_server.PORT), shared_namespace)
    stack.cluster.kubectl("wait", "pod/models", "-n", shared_namespace, "--for=condition=Ready", "--timeout=120s")
    return f"http://models.{shared_namespace}.svc:{model_server.PORT}"


@pytest.fixture
def volume(stack: Stack) -> Iterator[tuple[str, str]]:
    """A PersistentVolume on one node's own disk: (name, node). Gone afterwards, folder and all.

    Name it before `namespace` in a test: the claim, which goes with the namespace, holds the volume.
    """
    node = next(
        item["metadata"]["labels"]["kubernetes.io/hostname"]
        for item in stack.get("nodes")["items"]
        if not item["spec"].get("taints")
    )
    name = f"models-{uuid4().hex[:5]}"
    kubectl = stack.cluster.kubectl
    kubectl("create", "namespace", name)  # not restricted: a folder of the node is made in it
    try:
        stack.apply(node_disk(name, node, KEEP_FOLDER.format(name=name)), name)
        kubectl("wait", f"pod/{name}", "-n", name, "--for=condition=Ready", "--timeout=120s")
        stack.apply(node_volume(name, node))
        yield name, node
    finally:
        # nobody waits: Kubernetes keeps the volume until its claim is gone, and takes a minute over a namespace
        kubectl("delete", "persistentvolume", name, "--ignore-not-found", "--wait=false")
        kubectl("delete", "namespace", name, "--wait=false")


def says(stack: Stack, namespace: str, name: str) -> str:
    """The first tokens of a streamed answer."""
    with stack.forward(f"service/{name}", namespace) as base:
        return "".join(stream_chat(base, name, "what is a lighthouse", 16))


def test_a_model_is_fetched_over_http_by_the_init_container(stack: Stack, server: str, namespace: str) -> None:
    stack.apply(real("fetched", f"{server}/tiny/"), namespace)
    stack.wait_ready("fetched", namespace)
    assert says(stack, namespace, "fetched")


def test_a_model_on_a_claim_is_served_from_where_it_lies(stack: Stack, volume: tuple[str, str], namespace: str) -> None:
    name, node = volume
    stack.apply(claim("weights", name), namespace)
    stack.apply(program_pod("fill", FILL, claim="weights", restart="Never"), namespace)
    stack.cluster.kubectl(
        "wait", "pod/fill", "-n", namespace, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s"
    )
    stack.apply(real("claimed", "pvc://weights/family/tiny"), namespace)
    stack.wait_ready("claimed", namespace)
    assert says(stack, namespace, "claimed")
    pods = stack.pods(namespace, "claimed")
    assert [pod["spec"]["nodeName"] for pod in pods] == [node] * 3
    for pod in pods:
        folders = {item["name"]: item for item in pod["spec"]["volumes"]}
        assert folders["models-claim"]["persistentVolumeClaim"] == {"claimName": "weights", "readOnly": True}
        assert "models-cache" not in folders, "the model was copied"


def test_a_gated_hub_model_asks_for_a_token_and_is_served_once_it_has_one(
    stack: Stack, server: str, namespace: str
) -> None:
    uri = f"hf://{model_server.REPOSITORY}"
    endpoint = {"name": "HF_ENDPOINT", "value": server}
    stack.apply(real("hub", uri, template=fetch_environment(endpoint)), namespace)
    wait_until_explained(stack, namespace, "hub", "401", "set HF_TOKEN")
    literal = f"--from-literal=token={model_server.TOKEN}"
    stack.cluster.kubectl("create", "secret", "generic", "hub", literal, "--namespace", namespace)
    token = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}
    stack.apply(real("hub", uri, template=fetch_environment(endpoint, token)), namespace)
    stack.wait_ready("hub", namespace)
    assert says(stack, namespace, "hub")


@pytest.mark.parametrize(
    ("folder", "named"),
    [
        ("truncated", [model_server.WEIGHTS, "truncated", str(model_server.TRUNCATED_BYTES), "fetch again"]),
        ("missing", [f"no tensor {model_server.TENSOR} [256, 128]", "config.json", "fetch the model again"]),
        ("dtype", [model_server.WEIGHTS, f"tensor {model_server.TENSOR} has dtype I32", "F32", "convert"]),
    ],
)
def test_a_damaged_checkpoint_is_a_condition_that_says_what_is_wrong_and_what_to_do(
    stack: Stack, server: str, namespace: str, folder: str, named: list[str]
) -> None:
    stack.apply(real("broken", f"{server}/{folder}/"), namespace)
    wait_until_explained(stack, namespace, "broken", *named)
    assert stack.condition("broken", "Ready", namespace)["status"] == "False"


def fetch_environment(*variables: Mapping[str, object]) -> str:
    """Pod template override that gives the init container environment variables."""
    return json.dumps({"spec": {"initContainers": [{"name": "fetch", "env": list(variables)}]}})


def wait_until_explained(stack: Stack, namespace: str, name: str, *words: str) -> None:
    """Waits until the message of Ready holds all of `words`; a failure shows the message that was there instead."""

    def probe() -> bool:
        message: str = stack.condition(name, "Ready", namespace).get("message", "")
        if missing := [word for word in words if word not in message]:
            raise RuntimeError(f"Ready lacks {missing}: {message}")
        return True

    wait_until(f"Ready of {name} names {', '.join(words)}", 120, probe)
