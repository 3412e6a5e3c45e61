"""Memory that is freed stays with the pod: the next page of KV costs no new mapping."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource
from tandem_runtime.server.memory import keep_freed_memory
if not keep_freed_memory():
    print(0)
    raise SystemExit
pages = [bytearray(b"x") * 400_000 for _ in range(16)]
del pages
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
pages = [bytearray(b"x") * 400_000 for _ in range(16)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_what_was_freed_is_used_again_without_asking_the_kernel() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 50, "16 pages of 400 KB are 1,563 pages of memory"
