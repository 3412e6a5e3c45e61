"""What the machine can do at best: the same bytes between two processes over a loopback socket, and nothing else."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from typing import Final

SENDER: Final = """
import socket, sys
size = int(sys.argv[2])
payload = memoryview(bytearray(range(256)) * (size // 256 + 1))[:size]
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    while connection.recv(1):
        connection.sendall(payload)
"""


class Loopback:
    """A process that sends `count` bytes whenever it is asked."""

    def __init__(self, count: int) -> None:
        self._buffer = memoryview(bytearray(count))
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            self._process = subprocess.Popen([sys.executable, "-c", SENDER, str(port), str(count)])
            server.settimeout(60.0)
            self._connection, _ = server.accept()
        self._connection.settimeout(60.0)

    @property
    def pid(self) -> int:
        """Of the process that sends."""
        return self._process.pid

    def seconds(self) -> float:
        """From the question to the last byte."""
        started = time.perf_counter()
        self._connection.sendall(b"?")
        taken = 0
        while taken < len(self._buffer):
            count = self._connection.recv_into(self._buffer[taken:])
            if not count:
                raise RuntimeError("the sender of the loopback measurement ended")
            taken += count
        return time.perf_counter() - started

    def close(self) -> None:
        """Ends the process."""
        self._connection.close()
        self._process.wait(10.0)
