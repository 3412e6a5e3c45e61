"""API keys on a real cluster: without the Secret the door stays shut and says so; keys change without a restart."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

from tandem_runtime.contracts.key_entry import hash_of

from e2e.cases.manifests import emulated
from e2e.stack import Stack, wait_until

OLD, NEW = ("tandem-" + letter * 40 for letter in "ab")


def secret(key: str) -> str:
    """One key, named alice."""
    metadata = {"name": "keys"}
    entries = {"alice": json.dumps({"hash": hash_of(key), "maxConcurrent": 4})}
    return json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": entries})


def status(base: str, key: str) -> int:
    """Of a short request with this key; empty: without one."""
    body = {"model": "fleet", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(f"{base}/v1/chat/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code


def test_without_the_secret_nobody_enters_and_keys_are_exchanged_without_a_restart(
    stack: Stack, namespace: str
) -> None:
    stack.apply(emulated("fleet").replace("  router:\n", "  router:\n    apiKeysSecret: {name: keys}\n"), namespace)
    told = wait_until(
        "the condition names the Secret",
        120,
        lambda: (
            (one := stack.condition("fleet", "RouterAvailable", namespace)).get("reason") == "ApiKeysMissing"
            and one["message"]
        ),
    )
    assert "keys" in told
    stack.apply(secret(OLD), namespace)
    stack.wait_ready("fleet", namespace)
    router = stack.pods(namespace, "fleet", "router")[0]["metadata"]
    with stack.forward("service/fleet", namespace) as base:
        assert [status(base, key) for key in ("", NEW, OLD)] == [401, 401, 200]
        stack.apply(secret(NEW), namespace)
        # a kubelet looks at Secrets once a minute, and at once when the pod changes
        stack.cluster.kubectl("annotate", "pod", router["name"], "--namespace", namespace, "looked-at=again")
        wait_until("the new key is taken", 150, lambda: status(base, NEW) == 200)
        assert [status(base, key) for key in ("", OLD)] == [401, 401]
    assert [pod["metadata"]["uid"] for pod in stack.pods(namespace, "fleet", "router")] == [router["uid"]]
