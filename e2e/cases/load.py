"""Load from inside the cluster: a pod streams answers that it knows, so that a lost, cut or wrong one is noticed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from e2e.cases import load_program
from e2e.cases.manifests import program_pod
from e2e.stack import Stack, wait_until


@dataclass
class Load:
    """Used as a context manager: the right answers are known when it is entered; the end waits for what runs.

    `node`: where its pod has to stand, when others may go.
    """

    stack: Stack
    namespace: str
    model: str
    streams: int = 6
    node: str = ""
    results: list[dict[str, Any]] = field(default_factory=list)
    """Of ended streams: `began` (seconds since the epoch), `pause` (longest wait for a piece), `problem`."""

    @property
    def pod(self) -> str:
        """Its name."""
        return f"load-{self.model}"

    def look(self, path: str = "/") -> dict[str, Any]:
        """The pod's account now."""
        where = f"/api/v1/namespaces/{self.namespace}/pods/{self.pod}:{load_program.PORT}/proxy{path}"
        answer: dict[str, Any] = json.loads(self.stack.cluster.kubectl("get", "--raw", where))
        self.results = answer["results"]
        return answer

    def problems(self) -> list[str]:
        """Of ended streams: empty for those that were answered exactly and to their end."""
        return [result["problem"] for result in self.results]

    def succeeds_again(self, streams: int = 3) -> Callable[[], bool]:
        """A probe: whether `streams` streams that began after this call ended well."""
        moment = time.time()

        def probe() -> bool:
            self.look()
            return sum(1 for each in self.results if each["began"] > moment and not each["problem"]) >= streams

        return probe

    def check(self, ended: int = 0) -> None:
        """Nothing was lost, cut or wrong of the streams that ended after the first `ended`."""
        assert len(self.results) > ended, "no stream ended"
        found = [problem for problem in self.problems()[ended:] if problem]
        assert not found, f"{len(found)} of {len(self.results) - ended} streams, the first: {found[:3]}"

    def __enter__(self) -> Load:
        url = f"http://{self.model}.{self.namespace}.svc:8000"
        program = Path(load_program.__file__).read_text() + f"\n\nmain({url!r}, {self.model!r}, {self.streams})\n"
        self.stack.apply(program_pod(self.pod, program, node=self.node), self.namespace)

        def learnt() -> bool:
            answer = self.look()
            assert not answer["problem"], f"the undisturbed fleet does not answer: {answer['problem']}"
            return bool(answer["learnt"] == len(load_program.PROMPTS))

        wait_until("right answers", 120, learnt)
        wait_until("first streams", 60, self.succeeds_again())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.look("/stop")
                wait_until("the end of all streams", 120, lambda: not self.look()["running"])
                self.check()
        finally:
            away = ["delete", "pod", self.pod, "--namespace", self.namespace, "--grace-period=0", "--force"]
            self.stack.cluster.kubectl(*away, check=False)
