"""Requests through real pods: what the client gets, and what it takes to keep getting it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from e2e.cases.manifests import emulated, real
from e2e.stack import Stack, post, stream_chat, wait_until


@pytest.fixture(scope="module")
def chat(stack: Stack, shared_namespace: str) -> str:
    """A real model on one prefill and one decode pod, ready; returns its namespace."""
    stack.apply(real("chat"), shared_namespace)
    stack.wait_ready("chat", shared_namespace)
    return shared_namespace


@pytest.fixture(scope="module")
def url(stack: Stack, chat: str) -> Iterator[str]:
    """Base URL of the client Service."""
    with stack.forward("service/chat", chat) as base:
        yield base


def test_a_stream_says_the_same_as_the_whole_answer_and_its_pages_crossed(stack: Stack, chat: str, url: str) -> None:
    prompt = "what is a lighthouse " * 8
    streamed = "".join(stream_chat(url, "chat", prompt, 32))
    body = {"model": "chat", "messages": [{"role": "user", "content": prompt}], "max_tokens": 32, "temperature": 0}
    whole = post(f"{url}/v1/chat/completions", body)
    assert streamed == whole["choices"][0]["message"]["content"]
    assert whole["usage"]["completion_tokens"] == 32
    prefill, decode = (stack.pods(chat, "chat", role)[0]["metadata"]["name"] for role in ("prefill", "decode"))
    sent, received = stack.metrics(chat, prefill), stack.metrics(chat, decode)
    assert sent["tandem_kv_tx_bytes_total"] == received["tandem_kv_rx_bytes_total"] > 0
    computed = sum(value for name, value in received.items() if name.startswith("vllm:prompt_tokens_total"))
    assert computed == 0, "the decode pod computed prompt tokens itself"


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{not json", 400, "JSON"),
        ({"model": "gpt-9", "messages": [{"role": "user", "content": "x"}]}, 404, "gpt-9"),
        ({"model": "chat", "messages": [{"role": "user", "content": "sea " * 5000}]}, 400, "2048"),
        ({"model": "chat", "messages": []}, 400, "messages"),
    ],
    ids=["malformed", "unknown-model", "too-long", "no-messages"],
)
def test_a_bad_request_gets_an_openai_error_that_says_what_to_change(
    url: str, body: bytes | dict[str, object], status: int, says: str
) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/v1/chat/completions", data, {"content-type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    assert caught.value.code == status
    error = json.loads(caught.value.read())["error"]
    assert says in error["message"]


def test_a_client_that_leaves_frees_its_pages(stack: Stack, chat: str, url: str) -> None:
    pieces = stream_chat(url, "chat", "tell me everything", 1500)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    decode = stack.pods(chat, "chat", "decode")[0]["metadata"]["name"]

    def idle() -> bool:
        seen = stack.metrics(chat, decode)
        running = sum(value for name, value in seen.items() if name.startswith("vllm:num_requests_running"))
        return running == 0 and seen["tandem_engine_leaked_pages"] == 0

    wait_until("the decode pod is idle and holds no page", 60, idle)


CLASSES = """  slo:
  - {class: interactive, ttft: {base: 60s}, tpot: 10s, priority: 10}
  - {class: batch, ttft: {base: 10m}, tpot: 10s}
"""


def test_requests_are_counted_by_the_classes_of_the_spec_and_an_edit_restarts_no_router(
    stack: Stack, namespace: str
) -> None:
    stack.apply(emulated("fleet", extra=CLASSES), namespace)
    stack.wait_ready("fleet", namespace)
    router = stack.pods(namespace, "fleet", "router")[0]["metadata"]["name"]
    with stack.forward("service/fleet", namespace) as base:
        assert [ask(base, header) for header in ("", "batch")] == ["", ""]
        assert "interactive, batch" in ask(base, "gold")
        counts = stack.signals(namespace, router)["classes"]
        assert {name: (one["met"], one["missed"]) for name, one in counts.items()} == {
            "interactive": (1, 0),
            "batch": (1, 0),
        }
        edited = CLASSES.replace("class: batch", "class: gold")
        stack.apply(emulated("fleet", extra=edited), namespace)
        wait_until("the ConfigMap says it", 90, lambda: "gold" in str(stack.get("cm", "fleet-endpoints", namespace)))
        # a kubelet looks at ConfigMaps once a minute, and at once when the pod changes
        stack.cluster.kubectl("annotate", "pod", router, "--namespace", namespace, "looked-at=again")
        wait_until("the router takes the new class", 150, lambda: ask(base, "gold") == "")
    assert stack.pods(namespace, "fleet", "router")[0]["metadata"]["name"] == router


def ask(base: str, slo_class: str) -> str:
    """The error that a short request of that class gets; empty when it is answered."""
    body = {"model": "fleet", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
    headers = {"content-type": "application/json"} | ({"x-tandem-class": slo_class} if slo_class else {})
    request = urllib.request.Request(f"{base}/v1/chat/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            json.load(response)
    except urllib.error.HTTPError as refused:
        return str(json.loads(refused.read())["error"]["message"])
    return ""
