"""Reads of a test that waits: through one `kubectl proxy`, as a kubectl for each look costs 0.1 s of a core."""

from __future__ import annotations

import atexit
import http.client
import json
import os
import re
import subprocess
import urllib.parse
from typing import Any

from e2e.cluster import Cluster, ClusterError

GROUP = "apis/tandem.dev/v1alpha1"
PATHS = {
    "cm": "api/v1/{namespace}configmaps",
    "configmap": "api/v1/{namespace}configmaps",
    "deploy": "apis/apps/v1/{namespace}deployments",
    "deployment": "apis/apps/v1/{namespace}deployments",
    "events": "api/v1/{namespace}events",
    "hardwareclass": f"{GROUP}/hardwareclasses",
    "hwc": f"{GROUP}/hardwareclasses",
    "infd": f"{GROUP}/{{namespace}}inferencedeployments",
    "nodes": "api/v1/nodes",
    "pods": "api/v1/{namespace}pods",
    "service": "api/v1/{namespace}services",
}
"""What tests wait for, by the names that they give to kubectl."""
REQUEST_SECONDS = 30.0


class Reader:
    """Starts at the first read, ends with this process."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._process: subprocess.Popen[str] | None = None
        self._port = 0

    def get(self, kind: str, name: str, namespace: str, selector: str) -> dict[str, Any]:
        """An object, or a list. Raises ClusterError with the server's words."""
        path = PATHS[kind].format(namespace=f"namespaces/{namespace}/") + (f"/{name}" if name else "")
        query = {"labelSelector": selector} if selector else {}
        found: dict[str, Any] = json.loads(self.read(f"/{path}?{urllib.parse.urlencode(query)}"))
        return found

    def read(self, path: str) -> str:
        """The body of a GET. Raises ClusterError."""
        connection = http.client.HTTPConnection("127.0.0.1", self._serve(), timeout=REQUEST_SECONDS)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise ClusterError(f"GET {path}: {error!r}") from error
        finally:
            connection.close()
        if answer.status != 200:
            raise ClusterError(f"GET {path}: {answer.status} {body}")
        return body

    def close(self) -> None:
        """Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _serve(self) -> int:
        if self._process is None or self._process.poll() is not None:
            command = [str(self._cluster.kubectl_program()), "proxy", "--port=0"]
            environment = {**os.environ, **self._cluster.environment()}
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment, text=True
            )
            atexit.register(self.close)
            assert self._process.stdout is not None
            said = self._process.stdout.readline()
            found = re.search(r":(\d+)\s*$", said)
            if found is None:
                self.close()
                raise ClusterError(f"kubectl proxy did not start: {said or 'it said nothing'}")
            self._port = int(found[1])
        return self._port
