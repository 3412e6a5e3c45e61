"""The rules of Pod Security `restricted` (and a read-only root) as sentences about what a pod spec violates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def violations(spec: dict[str, Any]) -> Iterator[str]:
    """Of the pod as a whole and of each container."""
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield f"{field} is set"
    for volume in spec.get("volumes", []):
        kinds = set(volume) - {"name"}
        if not kinds <= VOLUMES:
            yield f"volume {volume['name']} is of kind {kinds}"
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        name, own = container["name"], container.get("securityContext", {})
        for sentence in (*_privileges(own), *_identity(own, spec.get("securityContext", {}))):
            yield f"{name} {sentence}"
        if any("hostPort" in port for port in container.get("ports", [])):
            yield f"{name} uses a port of the host"


def _privileges(own: dict[str, Any]) -> Iterator[str]:
    if own.get("privileged") or own.get("procMount", "Default") != "Default":
        yield "is privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "may escalate privileges"
    if "ALL" not in own.get("capabilities", {}).get("drop", []):
        yield "keeps capabilities"
    if set(own.get("capabilities", {}).get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "adds capabilities"
    if not own.get("readOnlyRootFilesystem"):
        yield "can write to its root"


def _identity(own: dict[str, Any], pod: dict[str, Any]) -> Iterator[str]:
    if not own.get("runAsNonRoot", pod.get("runAsNonRoot")):
        yield "may run as root"
    if own.get("runAsUser", pod.get("runAsUser")) == 0:
        yield "runs as user 0"
    profile = own.get("seccompProfile", pod.get("seccompProfile", {})).get("type")
    if profile not in ("RuntimeDefault", "Localhost"):
        yield f"has seccomp profile {profile}"
