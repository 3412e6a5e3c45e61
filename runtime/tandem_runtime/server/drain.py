"""A pod empties, at SIGTERM or to take another role: nothing new, what can finishes, the rest is handed back, counted.

What is handed back goes on elsewhere: a router resumes the stream on another pod, a decode pod computes the prompt.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tandem_runtime.contracts.pod_protocol import Reason

if TYPE_CHECKING:
    from tandem_runtime.server.pod import Pod

POLL_SECONDS = 0.05


@dataclass(slots=True)
class DrainReport:
    """Requests of routers and, on a prefill pod, of decode pods. Its figures grow while it drains."""

    in_flight_at_start: int
    completed: int = 0
    """Ended while it drained, those that their client gave up included."""
    migrated: int = 0
    """Handed back: they go on elsewhere."""
    lost: int = 0
    """Of this pod's own HTTP port: nobody else can take them."""
    seconds: float = 0.0


async def drain(pod: Pod, report: DrainReport, timeout_seconds: float, end: str) -> DrainReport:
    """Ends when nothing is left, at the latest after `timeout_seconds`. `end`: what the pod then did, for people."""
    started = pod.clock()
    pod.draining = pod.sender.draining = True
    pod.changed.set()
    engine = pod.engine.engine
    while pod.in_flight and pod.clock() < started + timeout_seconds and not engine.ended.done():
        await asyncio.sleep(POLL_SECONDS)
        report.completed = report.in_flight_at_start - pod.in_flight
        report.seconds = pod.clock() - started
    sessions = pod.sessions()
    report.completed = report.in_flight_at_start - pod.in_flight
    report.lost = sum(not session.movable for session in sessions)
    report.migrated = pod.in_flight - report.lost  # prompts for decode pods too: those see the connection end
    for session in sessions:
        text = f"pod {pod.identity.pod} {end} before the answer was complete"
        session.fail(Reason.DRAINING, text, True)
    report.seconds = pod.clock() - started
    return report
