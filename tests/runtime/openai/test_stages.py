"""Stages see each request once on the way in and once on the way out, whatever becomes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from tandem_runtime.contracts.pod_protocol import Delta, Failed, Submit
from tandem_runtime.openai.errors import ApiError
from tandem_runtime.openai.stages import Passage, Stage, Stages

from tests.runtime.openai.local import LocalFront, ScriptedBackend, running_front


class Witness(Stage):
    """Notes what it is asked."""

    def __init__(self, name: str, seen: list[str], refuse_at: str = "") -> None:
        self.name, self.seen, self.refuse_at = name, seen, refuse_at

    def enter(self, passage: Passage) -> None:
        self._note("enter")
        passage.notes[self] = 1

    def admit(self, passage: Passage, submit: Submit) -> Submit:
        self._note("admit")
        return msgspec.structs.replace(submit, tenant_salt=submit.tenant_salt + self.name.encode())

    def leave(self, passage: Passage) -> None:
        self.seen.append(f"{self.name} leave {passage.record.status} {passage.notes.get(self)}")

    def _note(self, what: str) -> None:
        self.seen.append(f"{self.name} {what}")
        if what == self.refuse_at:
            raise ApiError(403, "not you", code="refused")


class Shouting(Witness):
    """Looks at answers too."""

    def answer(self, passage: Passage, delta: Delta) -> Delta | Failed:
        if "quoted" in delta.text:
            return Failed(delta.id, delta.attempt, "unwanted", "an unwanted word", retryable=False)
        return msgspec.structs.replace(delta, text=delta.text.upper())


@asynccontextmanager
async def front_with(*stages: Stage, words: list[str] | None = None) -> AsyncIterator[LocalFront]:
    backend = ScriptedBackend() if words is None else ScriptedBackend(words=words)
    async with running_front(backend) as local:
        local.front.stages = Stages(stages)
        yield local


async def test_stages_are_entered_in_order_and_left_in_reverse_with_the_answer_known() -> None:
    seen: list[str] = []
    async with front_with(Witness("a", seen), Witness("b", seen)) as local:
        status, _, _ = await local.chat()
    assert status == 200
    assert seen == ["a enter", "b enter", "a admit", "b admit", "b leave 200 1", "a leave 200 1"]
    assert local.backend.submits[0].tenant_salt == b"ab"


async def test_who_is_refused_at_the_door_is_left_once_and_never_submitted() -> None:
    seen: list[str] = []
    async with front_with(Witness("a", seen), Witness("b", seen, "enter"), Witness("c", seen)) as local:
        status, body, _ = await local.chat()
    assert (status, body["error"]["code"]) == (403, "refused")
    assert seen == ["a enter", "b enter", "b leave 403 None", "a leave 403 1"]
    assert not local.backend.submits


async def test_who_is_refused_when_the_prompt_is_counted_never_reaches_the_queue() -> None:
    seen: list[str] = []
    async with front_with(Witness("a", seen, "admit")) as local:
        status, _, _ = await local.chat()
    assert status == 403
    assert not local.backend.submits
    assert seen[-1] == "a leave 403 1"


async def test_a_stage_may_change_the_answer_and_end_it() -> None:
    async with front_with(Shouting("s", []), words=["Hello", " you"]) as local:
        _, body, _ = await local.chat()
        assert body["choices"][0]["message"]["content"] == "HELLO YOU"
    async with front_with(Shouting("s", [])) as local:
        status, body, _ = await local.chat()
    assert (status, body["error"]["code"]) == (500, "unwanted")


async def test_the_trace_of_the_client_goes_on_to_the_pod_with_a_span_of_the_router() -> None:
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with front_with() as local:
        await local.post("/v1/completions", {"model": "chat", "prompt": "hi"}, traceparent=given)
        await local.chat()
    first, second = (submit.traceparent for submit in local.backend.submits)
    assert first.startswith(given[:36])
    assert first[36:52] != given[36:52]
    assert second[3:35] not in ("", first[3:35])
    assert local.records[0].log_fields()["trace_id"] == given[3:35]


async def test_prompts_beyond_the_limit_of_the_deployment_are_refused_with_the_numbers() -> None:
    async with running_front(max_prompt_tokens=3) as local:
        status, body, headers = await local.complete(prompt="longer than that")
    assert (status, body["error"]["code"], headers["x-tandem-reason"]) == (400, "prompt_too_long", "prompt_too_long")
    assert "at most 3" in body["error"]["message"]
