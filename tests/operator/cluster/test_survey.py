"""`tandem plan --cluster`: one look at classes, nodes and pods, and sentences when it cannot be had."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tandem_operator.cli.main import main
from tandem_operator.cluster import survey
from tandem_operator.placement.catalogue import entries, manifest

from tests.operator.performance import public_models

H100 = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}


def node(name: str, labels: dict[str, str]) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": labels, "resourceVersion": "1"},
        "status": {"allocatable": {"nvidia.com/gpu": "8"}, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def pod(name: str, where: str, devices: int, deployment: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "team", "labels": {"tandem.dev/deployment": deployment}},
        "spec": {"nodeName": where, "containers": [{"resources": {"limits": {"nvidia.com/gpu": str(devices)}}}]},
        "status": {"phase": "Running"},
    }


class Listed:
    """A source whose lists are what a test says, a page for every two items."""

    def __init__(self, **kinds: list[dict[str, Any]]) -> None:
        self.kinds = kinds

    async def list_page(self, kind: str, namespace: str | None, query: dict[str, str]) -> bytes:
        first = int(query.get("continue", "0"))
        items = self.kinds.get(kind, [])
        more = str(first + 2) if len(items) > first + 2 else ""
        metadata = {"resourceVersion": "1", "continue": more}
        return json.dumps({"metadata": metadata, "items": items[first : first + 2]}).encode()

    async def watch_lines(
        self, kind: str, namespace: str | None, query: dict[str, str], quiet_seconds: float
    ) -> AsyncIterator[bytes]:
        raise AssertionError("a survey follows nothing")
        yield b""

    async def close(self) -> None:
        pass


def cluster() -> Listed:
    classes = [manifest(name, entries()[name]) for name in ("h100-sxm", "l40s")]
    broken = {"metadata": {"name": "broken"}, "spec": {"memory": "much"}}
    nodes = [node("a", H100), node("b", H100), node("c", {"nvidia.com/gpu.product": "NVIDIA-Unheard-Of"})]
    return Listed(
        HardwareClass=[*classes, broken], Node=nodes, Pod=[pod("p", "a", 6, "other"), pod("q", "b", 4, "chat")]
    )


async def test_classes_nodes_and_pods_become_an_inventory() -> None:
    inventory, problems = await survey.read_inventory(cluster())
    assert list(problems) == ["broken"]
    assert inventory.capacity("h100-sxm").free == 6
    assert inventory.capacity("h100-sxm", without="team/chat").free == 10
    assert [stranger.product for stranger in inventory.strangers()] == ["NVIDIA-Unheard-Of"]


def plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: Any, *more: str) -> int:
    """Runs the command against `source`, or an error that it raises."""
    table = next(v for v in vars(public_models).values() if isinstance(v, dict) and "Llama-3.1-8B" in v)
    (tmp_path / "config.json").write_text(json.dumps(table["Llama-3.1-8B"].config))

    async def look() -> Any:
        if isinstance(source, Exception):
            raise source
        return await survey.read_inventory(source)

    monkeypatch.setattr(survey, "survey_cluster", look)
    return main(["plan", "--model", str(tmp_path), "--cluster", *more])


def test_the_table_is_of_what_the_cluster_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(monkeypatch, tmp_path, cluster()) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "h100-sxm 1 x 4 + 1 x 2" in out, "nodes by what is free"
    assert "1 nodes with 8 x nvidia.com/gpu (NVIDIA-Unheard-Of) are of no class" in out
    assert "HardwareClass broken is left out" in out
    assert "l40s" not in out, "no node is one"


def test_tainted_nodes_do_not_count_and_it_is_said_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = cluster()
    for one in source.kinds["Node"]:
        one["spec"] = {"taints": [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]}
    assert plan(monkeypatch, tmp_path, source) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "h100-sxm none free; " in out
    assert "2 nodes are tainted (sku) and do not count; tolerations in the template of -f help" in out
    assert "2 replicas find no room now" in out


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (survey.Unread("the cluster is not read: 403: nodes is forbidden"), "nodes is forbidden"),
        (Listed(), "the cluster has no HardwareClass; install the chart, or plan with --hardware instead"),
    ],
)
def test_a_cluster_that_cannot_be_read_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], source: Any, says: str
) -> None:
    assert plan(monkeypatch, tmp_path, source) == 1
    told = capsys.readouterr()
    assert says in told.err
    assert told.err.count("\n") == 1


async def test_a_kubeconfig_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(survey.Unread, match="none does not exist; set KUBECONFIG"):
        await survey.survey_cluster()
