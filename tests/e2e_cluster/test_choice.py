from __future__ import annotations

from pathlib import Path

import pytest

from e2e.cluster import Cluster, ClusterError, Unsupported, choice, open_cluster
from e2e.cluster.__main__ import main, parse_arguments
from e2e.cluster.current import CurrentCluster, NoCluster
from e2e.cluster.kind import KindCluster, render_config


def yes() -> bool:
    return True


def no() -> bool:
    return False


@pytest.mark.parametrize(
    ("kubeconfig", "exists", "docker", "root", "go", "kind"),
    [
        (Path("k"), True, yes, True, yes, "current"),
        (None, True, yes, True, yes, "local"),
        (None, False, yes, True, yes, "kind"),
        (None, False, no, True, yes, "local"),
        (None, False, no, False, yes, "processes"),
        (None, False, no, True, no, "processes"),
    ],
)
def test_auto_takes_the_best_that_is_possible(kubeconfig, exists, docker, root, go, kind) -> None:  # type: ignore[no-untyped-def]
    assert choice.choose(kubeconfig, exists, docker, root, go)[0] == kind


def test_what_was_left_out_is_said() -> None:
    _, reasons = choice.choose(None, False, no, False, no)
    assert reasons == ["Docker with kind does not answer", "this is not root", "Go 1.26 or newer is not on PATH"]
    said: list[str] = []
    NoCluster(reasons, said.append).up()
    assert "this is not root" in said[0]
    assert "doctor" in said[-1]


def test_current_is_never_taken_by_accident() -> None:
    with pytest.raises(ClusterError, match="--kubeconfig"):
        open_cluster("current", environment={})
    named = open_cluster("current", environment={"KUBECONFIG": "/k"})
    assert named.kubeconfig == Path("/k")


def test_auto_ignores_the_kubeconfig_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "choose", lambda kubeconfig, *rest: ("processes", [repr(kubeconfig)]))
    cluster = open_cluster("auto", environment={"KUBECONFIG": "/k"})
    assert isinstance(cluster, NoCluster)
    assert cluster.reasons == ["None"]


def test_an_unknown_kind_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ClusterError, match="auto, kind, local, current"):
        open_cluster("docker")


@pytest.mark.parametrize(
    "cluster", [KindCluster("t"), CurrentCluster(Path("k")), NoCluster([])], ids=lambda cluster: cluster.kind
)
@pytest.mark.parametrize("method", ["power_off", "power_on", "kill_agents", "restart_agents"])
def test_only_local_nodes_can_lose_power(cluster: Cluster, method: str) -> None:
    with pytest.raises(Unsupported, match="use --cluster local"):
        getattr(cluster, method)("n0")


def test_an_existing_cluster_says_what_to_do_with_an_image(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"push .*image.tar to a registry"):
        CurrentCluster(Path("k")).load_image("localhost/x:dev", tmp_path / "image.tar")
    with pytest.raises(ClusterError, match="there is no kubeconfig"):
        CurrentCluster(tmp_path / "missing").up()


def test_kind_gets_workers_only_for_more_than_one_node() -> None:
    assert render_config(1).count("role") == 1
    assert render_config(3).count('"worker"') == 3


def test_everything_after_kubectl_is_passed_on() -> None:
    parsed, rest = parse_arguments(["--name", "x", "kubectl", "get", "pods", "--nodes", "-o", "helm"])
    assert (parsed.command, parsed.name, rest) == ("kubectl", "x", ["get", "pods", "--nodes", "-o", "helm"])
    parsed, rest = parse_arguments(["up", "--nodes", "3", "--yes"])
    assert (parsed.command, parsed.nodes, parsed.yes, rest) == ("up", 3, True, [])


def test_options_may_stand_before_and_after_the_command() -> None:
    for arguments in (["--nodes", "2", "up"], ["up", "--nodes", "2"]):
        assert parse_arguments(arguments)[0].nodes == 2


def test_errors_are_one_line_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", "--cluster", "local", "--name", "Bad"]) == 1
    assert capsys.readouterr().err.startswith("error: cluster name 'Bad'")
