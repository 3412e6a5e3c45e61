"""InferenceDeployments of the cases. Pods on a lost node are given up after 5 s, so that tests are short."""

from __future__ import annotations

import json
from typing import Any

from e2e.stack import RUNTIME_IMAGE

NODE_FOLDER = "/var/log"
FAST_EVICTION = """
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 5}
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 5}"""


def emulated(name: str, prefill: int = 1, decode: int = 1, router: int = 1, extra: str = "") -> str:
    """Emulated pods: no model, ready in a second, the same router, hand-off and operator."""
    template = f"\n    template:\n     spec:{FAST_EVICTION}"
    return f"""
apiVersion: tandem.dev/v1alpha1
kind: InferenceDeployment
metadata: {{name: {name}}}
spec:
  runtime: {{executor: Emulated, emulated: {{hardwareClass: laptop}}}}
  prefill:
    replicas: {prefill}{template}
  decode:
    replicas: {decode}{template}
  router:
    replicas: {router}{template}
{extra}"""


def real(name: str, uri: str = "file:///models/tiny", context: int = 2048, template: str = "") -> str:
    """The torch executor with real weights; the sample model's own context is 2048 tokens.

    `template`: the pod template override of every role, as JSON. No devices: other cases make nodes with some.
    """
    override = f", template: {template}" if template else ""
    return f"""
apiVersion: tandem.dev/v1alpha1
kind: InferenceDeployment
metadata: {{name: {name}}}
spec:
  model: {{uri: "{uri}", maxContextTokens: {context}}}
  prefill: {{replicas: 1, gpus: 0{override}}}
  decode: {{replicas: 1, gpus: 0{override}}}
  router: {{replicas: 1{override}}}
"""


def program_pod(name: str, program: str, claim: str = "", restart: str = "Always", node: str = "") -> str:
    """A restricted pod that runs a Python program in the runtime image, /tmp and (with `claim`) /claim writable."""
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {}}]
    if claim:
        volumes.append({"name": "claim", "persistentVolumeClaim": {"claimName": claim}})
    container = {
        "name": "program",
        "image": RUNTIME_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", program],
        "volumeMounts": [{"name": volume["name"], "mountPath": f"/{volume['name']}"} for volume in volumes],
        "securityContext": {
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    spec = {
        "automountServiceAccountToken": False,
        "restartPolicy": restart,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }
    metadata = {"name": name, "labels": {"app": name}}
    spec |= {"nodeName": node} if node else {}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


def service(name: str, port: int) -> str:
    """A Service in front of the program pod of that name."""
    spec = {"selector": {"app": name}, "ports": [{"port": port}]}
    return json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})


def node_disk(name: str, node: str, program: str) -> str:
    """A pod that may write below /var/log of `node`, which every node has for itself on every kind of cluster."""
    container = {
        "name": "program",
        "image": RUNTIME_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", program],
        "securityContext": {"runAsUser": 0},
        "volumeMounts": [{"name": "disk", "mountPath": "/disk"}],
    }
    spec = {
        "nodeName": node,
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": [{"name": "disk", "hostPath": {"path": NODE_FOLDER, "type": "Directory"}}],
    }
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def node_volume(name: str, node: str) -> str:
    """A PersistentVolume: folder `name` on the disk of `node`, which the scheduler then chooses for its pods."""
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": "",
        "local": {"path": f"{NODE_FOLDER}/{name}"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
    }
    return json.dumps({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec})


def claim(name: str, volume: str) -> str:
    """A claim of that very volume; no provisioner is asked."""
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "",
        "volumeName": volume,
        "resources": {"requests": {"storage": "1Gi"}},
    }
    metadata = {"name": name}
    return json.dumps({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})
