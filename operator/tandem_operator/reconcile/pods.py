"""Pure: what is wrong with pods, in one word and one sentence that ends with what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from tandem_runtime.contracts.names import EXIT_BAD_CONFIG, EXIT_BAD_MODEL, EXIT_NO_KEYS

from tandem_operator.api import names
from tandem_operator.api.conditions import POD_PROBLEMS, Reason
from tandem_operator.reconcile.world import Object

IMAGE_REASONS: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "InvalidImageName",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
CONFIG_REASONS: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
NOT_STARTED: Final = frozenset({"StartError", "ContainerCannotRun"})
"""Reasons of an end that was none: the command is not in the image, or may not run there."""
DEVICE_WORDS: Final = ("node affinity/selector", "/gpu", "habana.ai/", "aws.amazon.com/neuron", "google.com/tpu")
"""What the scheduler says when the class or the devices are lacking: "Insufficient nvidia.com/gpu", "node(s) didn't
match Pod's node affinity/selector"."""
MESSAGE_LIMIT: Final = 400
"""Characters of a pod's own words; the rest is in its log."""


@dataclass(frozen=True)
class Problem:
    """Why a pod does not become ready."""

    reason: str
    message: str


def find_problem(pods: Iterable[Object]) -> Problem | None:
    """The most specific problem of any of `pods`; None when all is well or merely starting."""
    found = [problem for pod in pods if _counts(pod) for problem in _problems(pod)]
    return min(found, key=lambda problem: POD_PROBLEMS.index(problem.reason), default=None)


def lacks_devices(problem: Problem) -> bool:
    """Whether the scheduler found no node with devices of the right kind: not cpu, memory, volumes or the like."""
    return any(words in problem.message for words in DEVICE_WORDS)


def is_on_a_node(pod: Object) -> bool:
    return _counts(pod) and bool((pod.get("spec") or {}).get("nodeName"))


def finds_no_node(pod: Object) -> bool:
    return _counts(pod) and any(problem.reason == Reason.UNSCHEDULABLE for problem in _problems(pod))


def refused_pods(deployment: Object) -> Problem | None:
    """Pods that were never made: quota, Pod Security or a webhook said no."""
    for condition in (deployment.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            name = deployment["metadata"]["name"]
            return Problem(
                Reason.PODS_REFUSED,
                f"pods of Deployment {name} are refused: {shorten(condition.get('message', ''))};"
                " change the quota or policy, or the template override",
            )
    return None


def _counts(pod: Object) -> bool:
    """Not one that is on its way out, nor one that was evicted and already has a successor."""
    phase = (pod.get("status") or {}).get("phase")
    return not pod["metadata"].get("deletionTimestamp") and phase not in ("Failed", "Succeeded")


def _problems(pod: Object) -> Iterator[Problem]:
    status = pod.get("status") or {}
    name = pod["metadata"]["name"]
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            yield Problem(
                Reason.UNSCHEDULABLE,
                f"pod {name} finds no node: {shorten(condition.get('message', ''))};"
                " add such nodes, or lower resources, or change nodeSelector or tolerations in the template",
            )
    for container in status.get("initContainerStatuses") or []:
        yield from _container_problems(name, container, init=True)
    for container in status.get("containerStatuses") or []:
        yield from _container_problems(name, container, init=False)


def _container_problems(pod: str, container: dict[str, Any], init: bool) -> Iterator[Problem]:
    if container.get("ready"):  # of an init container: it is done, or a sidecar that runs
        return
    waiting = (container.get("state") or {}).get("waiting") or {}
    reason = waiting.get("reason", "")
    if reason in IMAGE_REASONS:
        yield Problem(
            Reason.IMAGE_MISSING,
            f"pod {pod} cannot get image {container.get('image')}: {shorten(waiting.get('message', reason))};"
            " correct spec.runtime.image or make the image available to the node",
        )
    elif reason in CONFIG_REASONS:
        yield Problem(
            Reason.POD_CONFIG,
            f"pod {pod} cannot start: {shorten(waiting.get('message', reason))}; see kubectl describe pod {pod}",
        )
    ended = (container.get("state") or {}).get("terminated") or (container.get("lastState") or {}).get("terminated")
    if not ended:
        return
    if ended.get("exitCode", 0) == 0 and reason != "CrashLoopBackOff":  # the runtime drains and ends well when told to
        return
    if reason == "CrashLoopBackOff" or container.get("restartCount", 0) > 0 or not waiting:
        yield _exit_problem(pod, container, ended, init)


def _exit_problem(pod: str, container: dict[str, Any], ended: dict[str, Any], init: bool) -> Problem:
    code = ended.get("exitCode")
    words = tail(ended.get("message", "")) or "it left no message"
    restarts = container.get("restartCount", 0)
    times = f"container {container['name']} of pod {pod} ended with code {code}, {restarts} restarts"
    log = f"kubectl logs {pod} -c {container['name']} --previous"
    if ended.get("reason") == "OOMKilled":
        return Problem(Reason.OUT_OF_MEMORY, f"{times}: out of memory; raise resources.limits.memory")
    if ended.get("reason") in NOT_STARTED:
        return Problem(
            Reason.POD_CONFIG,
            f"container {container['name']} of pod {pod} cannot be started from image {container.get('image')}:"
            f" {words}; correct spec.runtime.image",
        )
    if init and container["name"] == names.FETCH_CONTAINER:
        words = _with_advice(words, "correct spec.model.uri")
        return Problem(Reason.MODEL_NOT_FETCHED, f"the model cannot be brought: {words} ({times})")
    if code == EXIT_BAD_MODEL:
        words = _with_advice(words, "correct the model")
        return Problem(Reason.MODEL_NOT_LOADED, f"the model cannot be loaded: {words} ({times})")
    if code == EXIT_BAD_CONFIG:
        return Problem(Reason.CONFIG_REFUSED, f"the runtime refuses its settings: {words}; correct the spec ({times})")
    if code == EXIT_NO_KEYS:
        advice = "the Secret that spec.router.apiKeysSecret names must exist and hold a valid entry"
        return Problem(Reason.API_KEYS_MISSING, f"routers let nobody in: {words}; {advice} ({times})")
    if code == 0:
        words = "it ended as if told to, which is what a failed liveness or startup probe does"
    return Problem(Reason.CRASH_LOOP, f"{times}: {words}; see {log}")


def _with_advice(words: str, advice: str) -> str:
    """Our programs say after a semicolon what to do; two pieces of advice would contradict each other."""
    return words if "; " in words else f"{words}; {advice}"


def tail(text: str) -> str:
    """The end of what a program left: of a long log the last lines say why it ended."""
    line = _one_line(text)
    return line if len(line) <= MESSAGE_LIMIT else "..." + line[3 - MESSAGE_LIMIT :]


def shorten(text: str) -> str:
    line = _one_line(text)
    return line if len(line) <= MESSAGE_LIMIT else line[: MESSAGE_LIMIT - 3] + "..."


def _one_line(text: str) -> str:
    return " ".join(str(text).split()).rstrip(".;")
