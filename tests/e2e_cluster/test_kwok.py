from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import yaml

from e2e.cluster import kwok
from e2e.cluster.kwok import MARK, FakeNode, FakeNodes


def test_a_fake_node_has_what_a_kubelet_would_report() -> None:
    taint = {"key": "nvidia.com/gpu", "effect": "NoSchedule"}
    labels = {"kubernetes.io/arch": "arm64", "nvidia.com/gpu.product": "NVIDIA-GH200-480GB"}
    node = FakeNode("gh-1", labels, {"nvidia.com/gpu": 1, "cpu": 72}, [taint]).manifest()
    assert node["metadata"]["labels"] == {
        "kubernetes.io/hostname": "gh-1",
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "arm64",
        "nvidia.com/gpu.product": "NVIDIA-GH200-480GB",
        MARK: "fake",
    }
    assert node["status"]["allocatable"] == node["status"]["capacity"]
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "1"
    assert node["status"]["allocatable"]["cpu"] == "72"
    assert taint in node["spec"]["taints"]


def test_pods_that_do_not_ask_for_a_fake_node_get_none() -> None:
    (taint,) = FakeNode("n").manifest()["spec"]["taints"]
    assert (taint["key"], taint["effect"]) == (kwok.TOLERATION["key"], "NoSchedule")


def test_kwok_plays_only_the_nodes_that_bear_its_mark(tmp_path: Path) -> None:
    argv = kwok.command(Path("/bin/kwok"), tmp_path / "kubeconfig", tmp_path)
    assert f"--manage-nodes-with-label-selector={MARK}=fake" in argv
    assert "--manage-all-nodes=false" in argv
    assert f"--kubeconfig={tmp_path}/kubeconfig" in argv


def test_every_stage_is_of_nodes_or_pods_and_makes_templates_in_pairs() -> None:
    options, *stages = yaml.safe_load_all(kwok.STAGES.read_text())
    assert options["kind"] == "KwokConfiguration"
    assert [stage["metadata"]["name"] for stage in stages] == ["node-ready", "pod-ready", "pod-gone"]
    assert {stage["spec"]["resourceRef"]["kind"] for stage in stages} == {"Node", "Pod"}
    for stage in stages:
        text = stage["spec"]["next"].get("statusTemplate", "")
        blocks = text.count("{{ range") + text.count("{{ with")
        assert blocks == text.count("{{ end }}")


@pytest.mark.parametrize(("listing", "ready"), [("", 0), ("True\nFalse\n\nTrue\nUnknown", 2)])
def test_ready_nodes_are_counted(listing: str, ready: int) -> None:
    assert kwok.count_ready(listing) == ready


class RecordingCluster:
    """Answers every kubectl with nothing, and remembers it."""

    def __init__(self, folder: Path) -> None:
        self.kubeconfig = folder / "kubeconfig"
        self.said: list[tuple[str, ...]] = []

    def report(self, text: str) -> None:
        pass

    def kubectl(self, *arguments: str, **_: object) -> str:
        self.said.append(arguments)
        return ""


def test_nodes_and_process_are_gone_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "kwok"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    monkeypatch.setattr("e2e.cluster.build.build", lambda program_, report: program)
    cluster = RecordingCluster(tmp_path)
    fake = FakeNodes(cluster)  # type: ignore[arg-type]
    with contextlib.suppress(KeyError), fake:
        assert fake._process is not None
        assert fake._process.poll() is None
        raise KeyError
    assert fake._process is not None
    assert fake._process.poll() is not None
    assert cluster.said[-1][:2] == ("delete", "nodes")
    assert not fake._folder.exists()
