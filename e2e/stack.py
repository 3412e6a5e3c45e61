"""Tandem on a cluster: install the chart, apply, wait, talk. Used by quickstart, cases and bench."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from e2e.cluster import Cluster, ClusterError
from e2e.images.build import build_images
from e2e.reader import PATHS, Reader

ROOT = Path(__file__).parent.parent
SYSTEM_NAMESPACE = "tandem-system"
RUNTIME_IMAGE = "localhost/tandem-runtime:dev"
OPERATOR_IMAGE = "localhost/tandem-operator:dev"
SYSTEM = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": SYSTEM_NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
}
Json = dict[str, Any]


class TooSlow(AssertionError):
    """What was waited for did not come; the message holds what was seen last."""


def wait_until(what: str, seconds: float, probe: Callable[[], Any], every_seconds: float = 0.3) -> Any:
    """Calls `probe` until it returns something true and returns that; raises TooSlow with the last answer or error."""
    deadline = time.monotonic() + seconds
    last: object = None
    while True:
        try:
            if answer := probe():
                return answer
            last = answer
        except (ClusterError, OSError, json.JSONDecodeError, KeyError, RuntimeError) as error:
            last = error
        if time.monotonic() > deadline:
            raise TooSlow(f"{what}: not within {seconds:.0f} s; last seen: {last}")
        time.sleep(every_seconds)


@dataclass(frozen=True)
class Stack:
    """Tandem installed on `cluster`."""

    cluster: Cluster
    operator_image: str = OPERATOR_IMAGE
    runtime_image: str = RUNTIME_IMAGE

    @cached_property
    def reader(self) -> Reader:
        """For what is asked often."""
        return Reader(self.cluster)

    def load_images(self) -> str:
        """Builds what changed and imports it on every node; returns a name for the operator's content.

        Images that were named are pulled by the nodes instead.
        """
        if (self.operator_image, self.runtime_image) != (OPERATOR_IMAGE, RUNTIME_IMAGE):
            return self.operator_image
        archives = build_images("all", agreed=True)
        for name in (RUNTIME_IMAGE, OPERATOR_IMAGE):
            self.cluster.load_image(name, archives[name])
        return archives[OPERATOR_IMAGE].name

    def install(self, content: str = "", timeout: str = "180s") -> None:
        """`helm upgrade --install` in a restricted namespace; waits for the operator, new when `content` is."""
        self.cluster.kubectl("apply", "--filename", "-", input=json.dumps(SYSTEM))
        self.cluster.helm(
            "upgrade", "--install", "tandem", str(ROOT / "charts/tandem"),
            "--namespace", SYSTEM_NAMESPACE, "--wait", "--timeout", timeout,
            "--set", f"image={self.operator_image}", "--set", f"runtimeImage={self.runtime_image}",
            "--set-string", f"podAnnotations.content={content}",
        )  # fmt: skip

    def apply(self, manifest: str, namespace: str = "default") -> str:
        """`kubectl apply` of YAML text."""
        return self.cluster.kubectl("apply", "--namespace", namespace, "--filename", "-", input=manifest)

    def get(self, kind: str, name: str = "", namespace: str = "default", selector: str = "") -> Json:
        """An object, or a list of them, as the API server has it."""
        if kind in PATHS:
            return self.reader.get(kind, name, namespace, selector)
        arguments = ["get", kind, *([name] if name else []), "--namespace", namespace, "--output", "json"]
        if selector:
            arguments += ["--selector", selector]
        answer: Json = json.loads(self.cluster.kubectl(*arguments))
        return answer

    def pods(self, namespace: str, deployment: str, role: str = "") -> list[Json]:
        """Pods of one InferenceDeployment that are not on their way out."""
        selector = f"tandem.dev/deployment={deployment}" + (f",tandem.dev/role={role}" if role else "")
        items: list[Json] = self.get("pods", namespace=namespace, selector=selector)["items"]
        return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]

    def condition(self, name: str, kind: str, namespace: str = "default") -> Json:
        """One condition of an InferenceDeployment; an empty one while it is not there."""
        conditions = self.get("infd", name, namespace).get("status", {}).get("conditions", [])
        return next((item for item in conditions if item["type"] == kind), {})

    def wait_ready(
        self, name: str, namespace: str = "default", seconds: float = 240, tell: Callable[[str], None] | None = None
    ) -> None:
        """Waits for Ready=True of the generation applied last; tells every new reason on the way."""
        told = ""

        def probe() -> bool:
            nonlocal told
            infd = self.get("infd", name, namespace)
            ready = self.condition(name, "Ready", namespace)
            line = f"{ready.get('reason', 'Waiting')}: {ready.get('message', 'the operator has not looked yet')}"
            if tell and line != told:
                tell(line)
                told = line
            current = ready.get("observedGeneration") == infd["metadata"]["generation"]
            return current and ready.get("status") == "True"

        wait_until(f"infd/{name} Ready", seconds, probe)

    def metrics(self, namespace: str, pod: str) -> dict[str, float]:
        """Samples of a pod's metrics port by name with labels, through the API server's proxy."""
        text = self._metrics_port(namespace, pod, "metrics")
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, value in lines}

    def signals(self, namespace: str, pod: str) -> Json:
        """What a pod tells the autoscaler."""
        answer: Json = json.loads(self._metrics_port(namespace, pod, "signals"))
        return answer

    def _metrics_port(self, namespace: str, pod: str, path: str) -> str:
        return self.reader.read(f"/api/v1/namespaces/{namespace}/pods/{pod}:9090/proxy/{path}")

    @contextmanager
    def forward(self, target: str, namespace: str = "default", port: int = 8000) -> Iterator[str]:
        """`kubectl port-forward` to a Service or pod; yields the base URL on loopback."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            local = free.getsockname()[1]
        process = subprocess.Popen(
            [self.cluster.kubectl_program(), "port-forward", "--namespace", namespace, target, f"{local}:{port}"],
            env={**os.environ, **self.cluster.environment()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            wait_until(f"port-forward to {target}", 60, lambda: connects(local, process))
            yield f"http://127.0.0.1:{local}"
        finally:
            process.terminate()
            process.wait(10)


def connects(port: int, process: subprocess.Popen[str]) -> bool:
    """Whether loopback `port` takes connections; raises RuntimeError when the process behind it has ended."""
    if process.poll() is not None:
        raise RuntimeError(f"port-forward ended: {process.stdout.read() if process.stdout else ''}")
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


def post(url: str, body: Json, timeout: float = 120) -> Json:
    """POST of JSON; an HTTP error raises urllib.error.HTTPError."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout) as response:
        answer: Json = json.load(response)
    return answer


def stream_chat(base_url: str, model: str, prompt: str, max_tokens: int = 64, timeout: float = 120) -> Iterator[str]:
    """Text pieces of a streamed greedy chat completion. Raises RuntimeError when the stream ends without [DONE]."""
    messages = [{"role": "user", "content": prompt}]
    body = {"model": model, "messages": messages, "max_tokens": max_tokens, "temperature": 0, "stream": True}
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{base_url}/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=timeout) as response:
        for raw in response:
            line = raw.decode().strip()
            if line == "data: [DONE]":
                return
            if line.startswith("data: "):
                event = json.loads(line[6:])
                if "error" in event:
                    raise RuntimeError(f"the stream ended with an error: {event['error']}")
                for choice in event["choices"]:
                    if text := choice["delta"].get("content"):
                        yield text
    raise RuntimeError("the stream ended without [DONE]")
