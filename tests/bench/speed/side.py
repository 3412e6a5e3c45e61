"""One engine as a subprocess that is asked for one measurement after the other."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from types import TracebackType
from typing import IO, Any

from tests.bench.speed.checkpoint import SHAPES, ensure_checkpoint
from tests.bench.speed.peer import ensure_peer, peer_environment

ROOT = Path(__file__).parents[3]


class SideError(Exception):
    """An engine did not start, ended, or took too long; the message ends with its last words."""


class Side:
    """`engine` ours-bf16, ours-int8, ours-speculate, vllm, transformers; a context that ends the process."""

    def __init__(self, engine: str, shape: str, timeout_seconds: float) -> None:
        self.engine, self.shape = engine, shape
        self._timeout_seconds = timeout_seconds
        self._vocabulary = SHAPES[shape]["vocab_size"]
        self._asked = 0
        self._log = Path(os.environ.get("TMPDIR", "/tmp")) / f"tandem-bench-{engine}-{shape}-{os.getpid()}.log"
        command, environment = _command(engine, ensure_checkpoint(shape))
        started = time.monotonic()
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self._answer()
        self.ready_seconds = time.monotonic() - started

    def ask(self, requests: int, prompt_tokens: int, output_tokens: int, **more: Any) -> dict[str, Any]:
        """Answers to `requests` random prompts at once, the same for every engine's nth time and never the ones of
        before, which a prefix cache would know; the answer holds the seconds."""
        self._asked += 1
        random = Random(self._asked)
        prompts = [[random.randrange(3, self._vocabulary) for _ in range(prompt_tokens)] for _ in range(requests)]
        print(
            json.dumps({"prompts": prompts, "tokens": output_tokens, **more}),
            file=_pipe(self._process.stdin),
            flush=True,
        )
        return self._answer()

    def seconds(self, requests: int, prompt_tokens: int, output_tokens: int) -> float:
        """The same, only the seconds."""
        return float(self.ask(requests, prompt_tokens, output_tokens)["seconds"])

    def _answer(self) -> dict[str, Any]:
        out = _pipe(self._process.stdout)
        readable, _, _ = select.select([out], [], [], self._timeout_seconds)
        line = out.readline() if readable else ""
        if not line:
            why = "ended" if readable else f"said nothing for {self._timeout_seconds:.0f} s"
            self.close()
            raise SideError(f"{self.engine} on {self.shape} {why}: {self._log.read_text()[-600:].strip()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Ends the process; idempotent."""
        _pipe(self._process.stdin).close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Side:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def _command(engine: str, checkpoint: Path) -> tuple[list[str], dict[str, str]]:
    module = [sys.executable, "-m", "tests.bench.speed"]
    if engine == "vllm":
        python = ensure_peer()
        script = Path(__file__).parent / "vllm_side.py"
        return [str(python), str(script), str(checkpoint)], peer_environment(python, len(os.sched_getaffinity(0)))
    if engine == "transformers":
        return [*module[:2], f"{module[2]}.transformers_side", str(checkpoint)], dict(os.environ)
    return [*module[:2], f"{module[2]}.ours_side", str(checkpoint), engine.removeprefix("ours-")], dict(os.environ)
