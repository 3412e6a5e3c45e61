"""The client's requests and how it takes answers, against a small HTTP server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration
from tandem_operator.cluster.client import KubernetesClient
from tandem_operator.reconcile.errors import ApiError
from tandem_operator.reconcile.world import Notice

SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "chat", "namespace": "team", "uid": "u"}}


class Server:
    """Answers what the test put in `answers`, in order; remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any]] = []
        self.asked: list[tuple[str, str, dict[str, str], str, Any]] = []

    async def handle(self, request: web.Request) -> web.Response:
        content = request.headers.get("Content-Type", "")
        payload = await request.json() if request.can_read_body else None
        self.asked.append((request.method, request.path, dict(request.query), content, payload))
        status, body = self.answers.pop(0)
        return web.json_response(body, status=status)


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[KubernetesClient]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    made = KubernetesClient(Configuration(host=f"http://127.0.0.1:{port}"), "operator-1")
    yield made
    await made.close()
    await runner.cleanup()


async def test_apply_is_forced_server_side_apply_of_our_manager(server: Server, client: KubernetesClient) -> None:
    server.answers = [(200, SERVICE)]
    await client.apply(SERVICE)
    assert server.asked == [
        ("PATCH", "/api/v1/namespaces/team/services/chat", {"fieldManager": "tandem", "force": "true"},
         "application/apply-patch+yaml", SERVICE)
    ]  # fmt: skip


async def test_a_list_is_read_to_its_end_and_its_items_are_whole_objects(
    server: Server, client: KubernetesClient
) -> None:
    items = [{"metadata": {"name": str(n)}} for n in range(3)]
    server.answers = [
        (200, {"apiVersion": "v1", "metadata": {"continue": "more"}, "items": items[:2]}),
        (200, {"apiVersion": "v1", "metadata": {}, "items": items[2:]}),
    ]
    found = await client.find("Pod", "team", {"b": "2", "a": "1"})
    assert [item["metadata"]["name"] for item in found] == ["0", "1", "2"]
    assert {(item["apiVersion"], item["kind"]) for item in found} == {("v1", "Pod")}
    queries = [query for _, _, query, _, _ in server.asked]
    assert queries[0]["labelSelector"] == "a=1,b=2"
    assert queries[1]["continue"] == "more"
    assert all("resourceVersion" not in query for query in queries), "only a consistent read may decide about a prune"


async def test_a_list_that_breaks_off_is_an_error_not_a_part(server: Server, client: KubernetesClient) -> None:
    server.answers = [
        (200, {"apiVersion": "v1", "metadata": {"continue": "more"}, "items": [{"metadata": {}}]}),
        (410, {"message": "the continue token is too old"}),
    ]
    with pytest.raises(ApiError, match="too old"):
        await client.find("Pod", "team", {})


async def test_absence_is_an_answer_where_it_is_expected(server: Server, client: KubernetesClient) -> None:
    server.answers = [(404, {}), (404, {}), (404, {}), (409, {}), (409, {})]
    assert await client.get("Service", "team", "chat") is None
    await client.apply_status(SERVICE)
    await client.delete("Service", "team", "chat", "u")
    assert await client.create(SERVICE) is False
    assert await client.replace(SERVICE) is False


async def test_delete_hits_exactly_the_object_that_was_seen(server: Server, client: KubernetesClient) -> None:
    server.answers = [(200, {})]
    await client.delete("Deployment", "team", "old", "uid-7")
    assert server.asked[0][4] == {"preconditions": {"uid": "uid-7"}, "propagationPolicy": "Background"}


@pytest.mark.parametrize(
    ("status", "message", "refused"),
    [
        (422, "spec.replicas: Invalid value", True),
        (400, "strict decoding error", True),
        (500, "failed to create typed patch object (x): .spec.y: field not declared in schema", True),
        (500, "etcdserver: request timed out", False),
        (403, "forbidden", False),
        (409, "conflict", False),
    ],
)
async def test_a_refusal_is_told_from_trouble(
    server: Server, client: KubernetesClient, status: int, message: str, refused: bool
) -> None:
    server.answers = [(status, {"message": message})]
    with pytest.raises(ApiError, match=message.split("(")[0]) as caught:
        await client.apply(SERVICE)
    assert caught.value.refused is refused


async def test_a_server_that_is_not_there_is_an_api_error() -> None:
    client = KubernetesClient(Configuration(host="http://127.0.0.1:9"), "x")
    with pytest.raises(ApiError, match="not reached"):
        await client.get("Service", "team", "chat")
    await client.close()


async def test_an_event_that_cannot_be_written_does_not_stop_the_loop(server: Server, client: KubernetesClient) -> None:
    server.answers = [(201, {}), (500, {"message": "no"})]
    notice = Notice("Warning", "ReplicasOverridden", "Repair", "x" * 5000)
    await client.notify(SERVICE, notice)
    await client.notify(SERVICE, notice)
    _, path, _, _, event = server.asked[0]
    assert path == "/apis/events.k8s.io/v1/namespaces/team/events"
    assert len(event["note"]) == 1024
    assert event["reportingInstance"] == "operator-1"
    assert event["regarding"]["name"] == "chat"


async def test_an_offer_takes_no_field_from_anybody_and_says_which_are_taken(
    server: Server, client: KubernetesClient
) -> None:
    causes = [
        {"reason": "FieldManagerConflict", "message": 'conflict with "kubectl-edit"', "field": ".spec.pricePerHour"},
        {"reason": "FieldValueInvalid", "field": ".spec.memory"},
    ]
    server.answers = [(200, {}), (409, {"message": "Apply failed with 1 conflict", "details": {"causes": causes}})]
    body = {"apiVersion": "tandem.dev/v1alpha1", "kind": "HardwareClass", "metadata": {"name": "h100-sxm"}}
    await client.offer(body)
    with pytest.raises(ApiError) as caught:
        await client.offer(body)
    assert caught.value.conflicts == (".spec.pricePerHour",)
    method, path, query, content, _ = server.asked[0]
    assert (method, path) == ("PATCH", "/apis/tandem.dev/v1alpha1/hardwareclasses/h100-sxm")
    assert (query, content) == ({"fieldManager": "tandem"}, "application/apply-patch+yaml")


async def test_a_page_and_the_lines_of_a_watch_come_as_they_are(server: Server, client: KubernetesClient) -> None:
    server.answers = [(200, {"items": []}), (200, {"type": "ADDED"})]
    assert await client.list_page("Node", None, {"limit": "500"}) == b'{"items": []}'
    lines = [line async for line in client.watch_lines("Pod", "team", {"resourceVersion": "7"}, 5)]
    assert lines == [b'{"type": "ADDED"}']
    assert [(path, query) for _, path, query, _, _ in server.asked] == [
        ("/api/v1/nodes", {"limit": "500"}),
        ("/api/v1/namespaces/team/pods", {"resourceVersion": "7", "watch": "1"}),
    ]


async def test_a_list_or_a_watch_that_is_refused_says_why(server: Server, client: KubernetesClient) -> None:
    server.answers = [(403, {"message": "may not list nodes"}), (410, {"message": "too old"})]
    with pytest.raises(ApiError, match="403: may not list nodes"):
        await client.list_page("Node", None, {})
    with pytest.raises(ApiError, match="410: too old"):
        async for _ in client.watch_lines("Node", None, {}, 5):
            pass


async def test_an_event_about_a_node_is_kept_where_those_are(server: Server, client: KubernetesClient) -> None:
    server.answers = [(201, {})]
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "uid": "n"}}
    await client.notify(node, Notice("Warning", "HardwareUnknown", "Recognize", "who is this"))
    _, path, _, _, body = server.asked[0]
    assert path == "/apis/events.k8s.io/v1/namespaces/default/events"
    assert body["regarding"] == {"apiVersion": "v1", "kind": "Node", "namespace": "", "name": "n", "uid": "n"}
