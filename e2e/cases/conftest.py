"""One cluster with three nodes and Tandem installed for the whole run; a restricted namespace for every test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from e2e.cluster import Cluster, ClusterError, open_cluster
from e2e.cluster.current import NoCluster
from e2e.cluster.layout import DEFAULT_NAME
from e2e.stack import Stack, wait_until

ARTIFACTS = Path(__file__).parent.parent / "artifacts"
NODES = 3
CHILDREN = "deployments,services,configmaps,secrets"
"""What the operator makes of an InferenceDeployment."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which cluster, and whether it stays."""
    parser.addoption("--cluster", default="auto", help="auto, kind, local or current")
    parser.addoption("--cluster-name", default=DEFAULT_NAME, help="a cluster beside one that is up")
    parser.addoption("--keep", action="store_true", help="leave the cluster running")
    parser.addoption("--installed", action="store_true", help="Tandem is there already, as this tree has it")


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The cluster, up; down at the end unless --keep was given."""
    option = request.config.getoption
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        chosen = open_cluster(option("--cluster"), nodes=NODES, yes=True, name=option("--cluster-name"))
        if isinstance(chosen, NoCluster):
            pytest.fail(
                f"e2e needs a cluster: {'; '.join(chosen.reasons)}; ./e2e/cluster/run doctor says how to get one"
            )
        chosen.up()
    yield chosen
    if not option("--keep") and chosen.kind != "current":
        chosen.down()


@pytest.fixture(scope="session")
def stack(cluster: Cluster, request: pytest.FixtureRequest) -> Stack:
    """Tandem, installed."""
    installed = Stack(cluster)
    if not request.config.getoption("--installed"):
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            installed.install(installed.load_images())
    return installed


def make_namespace(stack: Stack, name: str) -> None:
    """A namespace in which only Pod Security `restricted` pods may run."""
    stack.cluster.kubectl("create", "namespace", name)
    stack.cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")


@pytest.fixture
def namespace(stack: Stack, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own; on failure everything worth reading in it is kept below e2e/artifacts."""
    name = request.node.name.replace("_", "-").split("[")[0].lower()[:45].strip("-") + f"-{uuid4().hex[:5]}"
    make_namespace(stack, name)
    yield name
    report = getattr(request.node, "report_of_call", None)
    if report is not None and report.failed:
        collect(stack, name)
    stack.cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def shared_namespace(stack: Stack, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace that the tests of one module share."""
    name = f"{request.module.__name__.rsplit('.', 1)[-1].replace('_', '-')}-{uuid4().hex[:5]}"
    make_namespace(stack, name)
    yield name
    if request.session.testsfailed:
        collect(stack, name)
    stack.cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Lets fixtures see whether the test failed."""
    report = yield
    setattr(item, f"report_of_{report.when}", report)
    return report


def collect(stack: Stack, namespace: str) -> None:
    """Objects, events and logs of a namespace and of the operator, as files and the gist on stdout."""
    folder = ARTIFACTS / namespace
    folder.mkdir(parents=True, exist_ok=True)
    commands = {
        "objects.yaml": ["get", "infd,deploy,rs,pods,svc,cm,events", "-n", namespace, "-o", "yaml"],
        "overview.txt": ["get", "infd,pods", "-n", namespace, "-o", "wide"],
        "events.txt": ["get", "events", "-n", namespace, "--sort-by=.lastTimestamp"],
        "operator.log": ["logs", "-n", "tandem-system", "-l", "app.kubernetes.io/name=tandem", "--tail=2000"],
        "nodes.txt": ["get", "nodes", "-o", "wide"],
    }
    for file, command in commands.items():
        (folder / file).write_text(stack.cluster.kubectl(*command, check=False))
    for pod in stack.cluster.kubectl("get", "pods", "-n", namespace, "-o", "name", check=False).split():
        log = stack.cluster.kubectl("logs", "-n", namespace, pod, "--all-containers", "--tail=500", check=False)
        (folder / f"{pod.rsplit('/', 1)[-1]}.log").write_text(log)
    print((folder / "overview.txt").read_text(), file=sys.stderr)
    print(f"kept in {folder.relative_to(Path.cwd())}", file=sys.stderr)


@pytest.fixture
def refused(stack: Stack, namespace: str) -> Callable[[str], str]:
    """Applies a manifest that the API server must refuse; returns what it said."""

    def apply(manifest: str) -> str:
        with pytest.raises(ClusterError) as caught:
            stack.apply(manifest, namespace)
        return str(caught.value)

    return apply


def gone(stack: Stack, kind: str, namespace: str, selector: str) -> None:
    """Waits until no object of the kind is left."""
    wait_until(f"no {kind} left", 120, lambda: not stack.get(kind, namespace=namespace, selector=selector)["items"])
