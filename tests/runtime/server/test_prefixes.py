"""Prompts that begin alike are computed once: in a pod, over a hand-off, and not across tenants."""

from __future__ import annotations

from typing import Any

from tandem_runtime.contracts.pod_protocol import Usage
from tandem_runtime.engine.emulated_executor import EmulatedExecutor

from tests.runtime.server.pods import FAST, router, running_pod, submit

SYSTEM = [65] * 96
"""Three pages that every prompt here begins with."""


def usage(answer: tuple[Any, Any, Any]) -> Usage:
    found = answer[2].usage
    assert isinstance(found, Usage)
    return found


async def test_the_second_prompt_of_a_tenant_computes_only_what_is_new_and_of_another_tenant_all() -> None:
    async with running_pod() as pod, router(pod.internal_port) as client:
        first = await client.answer(submit("a", [*SYSTEM, 1, 2], tenant_salt=b"one"))
        second = await client.answer(submit("b", [*SYSTEM, 3], tenant_salt=b"one"))
        foreign = await client.answer(submit("c", [*SYSTEM, 3], tenant_salt=b"two"))
        assert (usage(first).cached_tokens, usage(first).prefilled_here) == (0, 98)
        assert (usage(second).cached_tokens, usage(second).prefilled_here) == (96, 1)
        assert (usage(foreign).cached_tokens, usage(foreign).prefilled_here) == (0, 97)
        assert foreign[0] == second[0], "the same tokens with and without the cache"
        await pod.idle()
        assert pod.pod.hello().keeps_prefixes


async def test_a_prefix_of_another_key_of_the_deployment_is_not_found() -> None:
    token = "secret"
    async with running_pod(token=lambda: token) as pod, router(pod.internal_port) as client:
        await client.answer(submit("a", [*SYSTEM, 1, 2]))
        token = "other"
        assert usage(await client.answer(submit("b", [*SYSTEM, 1, 2]))).cached_tokens == 0


async def test_what_the_decode_pod_has_is_not_sent_again_and_what_the_prefill_pod_has_not_computed_again() -> None:
    prompt = [*SYSTEM, *SYSTEM, 1]
    async with (
        running_pod("prefill") as prefill,
        running_pod("decode") as one,
        running_pod("decode", "decode-1") as two,
        router(one.internal_port) as first_client,
        router(two.internal_port) as second_client,
    ):
        whole = await first_client.answer(submit("a", prompt, peer=prefill.peer))
        rest = await first_client.answer(submit("b", prompt, peer=prefill.peer))
        other = await second_client.answer(submit("c", prompt, peer=prefill.peer))
        assert whole[0] == rest[0] == other[0]
        assert [usage(answer).prefilled_here for answer in (whole, rest, other)] == [0, 0, 0]
        pages = usage(whole).kv_bytes_received // EmulatedExecutor(FAST).load().layout.page_bytes
        assert pages == 7
        assert usage(rest).kv_bytes_received * pages == usage(whole).kv_bytes_received, "only the last page came"
        assert [usage(answer).cached_tokens for answer in (whole, rest, other)] == [0, 192, 192]
        assert usage(other).kv_bytes_received == usage(whole).kv_bytes_received
        assert prefill.pod.engine.engine.scheduler.counters.prompt_tokens == 193 + 1 + 1
        for pod in (prefill, one, two):
            await pod.idle()


async def test_without_the_cache_nothing_is_shared() -> None:
    async with running_pod(prefix_cache=False) as pod, router(pod.internal_port) as client:
        for name in ("a", "b"):
            assert usage(await client.answer(submit(name, [*SYSTEM, 1]))).cached_tokens == 0
        assert not pod.pod.hello().keeps_prefixes
