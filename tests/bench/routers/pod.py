"""`tandem-runtime both` that also writes down how long each prompt was inside: from the request to its first token.

What is left of a client's TTFT is what the way there and back took, whatever the pod was doing.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Any, Final

from tandem_runtime.__main__ import main
from tandem_runtime.contracts.pod_protocol import Delta, Failed, Submit
from tandem_runtime.openai import schemas
from tandem_runtime.server.pod import Pod
from tandem_runtime.server.session import Reply, Session

TAG: Final = re.compile(rb"<<(\d+)>>")
"""Number of the request, in its prompt: ids of the byte tokenizer are bytes."""


def keep_time(file: Path) -> None:
    """From now on each request adds a line `number seconds` to the file."""
    lines = file.open("a", buffering=1)
    plain = Pod.submit

    def submit(pod: Pod, request: Submit, reply: Reply, **more: Any) -> Session | None:
        arrived = time.monotonic()
        tag = TAG.search(bytes(token for token in request.prompt_ids if token < 256))
        waits = tag is not None

        def timed(message: Delta | Failed) -> None:
            nonlocal waits
            if waits and tag is not None and isinstance(message, Delta):
                waits = False
                lines.write(f"{int(tag[1])} {time.monotonic() - arrived:.6f}\n")
            reply(message)

        return plain(pod, request, timed, **more)

    Pod.submit = submit  # type: ignore[method-assign,assignment]


def take_any_field() -> None:
    """Peers add fields of their own to what clients send; our front would refuse them by name."""
    schemas.check_neutral = lambda name, value: None


if __name__ == "__main__":
    take_any_field()
    keep_time(Path(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
