"""The quickstart without a cluster: router, prefill and decode as local processes, the same runtime."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from e2e.stack import stream_chat, wait_until


def stream_from_processes(prompt: str) -> int:
    """Makes a model, serves it by `tandem-runtime serve`, prints its words as they come. Returns an exit code."""
    runtime = str(Path(sys.executable).parent / "tandem-runtime")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([runtime, "make-model", folder], check=True)
        base = free_port_base()
        serve = [runtime, "serve", "--model", folder, "--model-name", "chat", "--port-base", str(base)]
        server = subprocess.Popen(serve)
        try:
            url = f"http://127.0.0.1:{base}"
            wait_until("tandem-runtime serve", 120, lambda: answers(f"{url}/v1/models", server))
            started = time.monotonic()
            for text in stream_chat(url, "chat", prompt):
                sys.stdout.write(text)
                sys.stdout.flush()
            print(f"\n({time.monotonic() - started:.1f} s; a toy checkpoint without sense, on real weights)")
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)
    return 0


def free_port_base(span: int = 32) -> int:
    """A port whose `span` successors are free as far as one can tell."""
    for base in range(18000, 30000, span):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", base)):
                return base
    raise RuntimeError("no free range of loopback ports between 18000 and 30000")


def answers(url: str, server: subprocess.Popen[bytes]) -> bool:
    """Whether the URL answers 200; raises SystemExit when the server has ended."""
    if server.poll() is not None:
        raise SystemExit(f"tandem-runtime serve ended with exit code {server.returncode}")
    with urllib.request.urlopen(url, timeout=2) as response:
        return bool(response.status == 200)
