"""A client inside the cluster: streams answers that it knows from several threads and keeps what came of each.

The pod runs this file's text with the Python of the runtime image, so it needs nothing but the standard library.
"""

from __future__ import annotations

import http.client
import http.server
import itertools
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

PORT = 8080
PROMPTS = [f"request {number} " + "of the sea and the wind " * (number % 5 + 1) for number in range(12)]
TOKENS = 240
PATIENCE_SECONDS = 240.0
"""For the next piece of an answer: a lost node is noticed and replaced within that."""

Answer = tuple[str, int, str]
"""Text, tokens, finish reason."""


def read_answer(host: str, port: int, model: str, prompt: str) -> tuple[Answer, str, float]:
    """What came, why it is not whole (empty when it is), and the longest wait for a piece of it, in seconds."""
    text, tokens, reason, done, problem = "", 0, "", False, ""
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE_SECONDS)
    last, pause = time.monotonic(), 0.0
    body: dict[str, Any] = {"model": model, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "stream": True}
    body |= {"ignore_eos": True, "stream_options": {"include_usage": True}}
    try:
        headers = {"content-type": "application/json", "connection": "close"}
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        response = connection.getresponse()
        if response.status != 200:
            problem = f"{response.status} {response.read(500).decode(errors='replace')}"
        for raw in response:
            line = raw.decode().strip()
            now = time.monotonic()
            pause, last = max(pause, now - last), now
            if line == "data: [DONE]":
                done = True
            elif line.startswith("data: "):
                event = json.loads(line[6:])
                problem = str(event.get("error") or problem)
                for choice in event.get("choices", []):
                    text += choice.get("text") or ""
                    reason = choice.get("finish_reason") or reason
                tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
    except (OSError, ValueError, http.client.HTTPException) as error:
        problem = f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    return (text, tokens, reason), problem or ("" if done else "the stream ended without [DONE]"), pause


class Client:
    """Threads that ask on until they are told to stop."""

    def __init__(self, url: str, model: str, streams: int) -> None:
        parts = urlsplit(url)
        address = socket.gethostbyname(parts.hostname or "")  # once: the cluster's DNS may be on a node that is lost
        self._place = (address, parts.port or 80, model)
        self._rights: dict[str, Answer] = {}
        self._results: list[dict[str, Any]] = []
        self._stop = threading.Event()
        self._prompts = itertools.cycle(PROMPTS)
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(streams)]
        self._problem = ""

    def learn(self) -> None:
        """The right answers, of a fleet that nobody disturbs yet; asked twice, so that they are no accident."""
        with ThreadPoolExecutor(len(self._threads)) as pool:
            first, second = ([pool.submit(read_answer, *self._place, prompt) for prompt in PROMPTS] for _ in range(2))
        for prompt, one, two in zip(PROMPTS, first, second, strict=True):
            (answer, problem, _), (again, problem_again, _) = one.result(), two.result()
            self._problem = problem or problem_again or ("" if again == answer else "two answers to one prompt")
            if self._problem:
                return
            self._rights[prompt] = answer
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            prompt = next(self._prompts)
            began = time.time()
            answer, problem, pause = read_answer(*self._place, prompt)
            right = self._rights[prompt]
            if not problem and answer != right:
                problem = f"wrong: {answer[1]} tokens, {answer[2]!r}, {answer[0][:60]!r} instead of {right[0][:60]!r}"
            self._results.append({"began": began, "pause": pause, "problem": problem})
            if problem:
                self._stop.wait(0.2)

    def tell(self, path: str) -> dict[str, Any]:
        """The account; /stop lets what runs finish."""
        if path == "/stop":
            self._stop.set()
        running = sum(thread.is_alive() for thread in self._threads)
        results = list(self._results)
        return {"learnt": len(self._rights), "running": running, "problem": self._problem, "results": results}


def main(url: str, model: str, streams: int) -> None:
    """Until it is killed."""
    client = Client(url, model, streams)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(client.tell(self.path)).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base's name)
            pass

    threading.Thread(target=client.learn, daemon=True).start()
    http.server.ThreadingHTTPServer(("", PORT), Handler).serve_forever()
