"""What a pod tells of its steps, from which the operator learns how fast it is."""

from __future__ import annotations

from tandem_runtime.server.signals import Probes

from tests.runtime.server.pods import router, running_pod, submit


async def test_steps_tell_what_they_computed_and_attended_to_whatever_the_chunks() -> None:
    async with running_pod("both", step_tokens=16) as pod, router(pod.internal_port) as client:
        await client.answer(submit("a", [1] * 50, max_tokens=4))
        probes = Probes()
        probes.pod = pod.pod
        told = probes.signals()
    steps = told["iterations"]
    prompts = [step for step in steps if step["prefill_tokens"]]
    assert told["iterations_total"] == len(steps)
    assert [step["prefill_tokens"] for step in prompts] == [16, 16, 16, 2]
    assert sum(step["prefill_attended"] for step in steps) == 50 * 50 / 2
    assert [step["kv_tokens"] for step in steps if step["n"]] == [50, 51, 52]
