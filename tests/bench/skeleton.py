"""Seconds from nothing to the first token: cluster, image rebuild, chart, apply; then the memory of each process.

Without a cluster it measures the same runtime as local processes and says what it left out.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from e2e.cluster import Cluster, ClusterError, open_cluster
from e2e.images.build import build_images
from e2e.stack import OPERATOR_IMAGE, ROOT, RUNTIME_IMAGE, SYSTEM_NAMESPACE, Stack, TooSlow
from tests.bench.report import Report
from tests.bench.stages.processes import (
    first_token_seconds,
    measure_emulated_pod,
    measure_processes,
    memory_limit,
    timed,
)

NAMESPACE = "tandem-bench"
MARKER = ROOT / "runtime/tandem_runtime/telemetry/bench_marker.py"
"""A module that comes and goes: the change of code after which images are rebuilt."""
FLEETS = {
    "torch": "model: {uri: file:///models/tiny}",
    "emulated": "runtime: {executor: Emulated, emulated: {hardwareClass: laptop}}",
}


def measure_cluster_up(report: Report, cluster: Cluster) -> bool:
    """Brings it up; returns whether this run did (else it was up, and the figure is that of a second `up`)."""
    was_up, _ = cluster.status()
    with timed(report, "cluster", "up_seconds", "it was up already" if was_up else ""):
        cluster.up()
    return not was_up


def measure_images(report: Report, cluster: Cluster) -> None:
    """The first build may be cold; then a change of our code: build and import again, as in the daily round."""
    with timed(report, "images", "build_seconds", "with whatever the cache holds"):
        images = build_images("all")
    with timed(report, "images", "import_seconds"):
        load(cluster, images)
    try:
        MARKER.write_text(f'"""Written by a benchmark, removed by it."""\n\nMARK = {time.time_ns()}\n')
        with timed(report, "images", "rebuild_after_code_change_seconds"):
            images = build_images("all")
        with timed(report, "images", "import_after_code_change_seconds"):
            load(cluster, images)
    finally:
        MARKER.unlink(missing_ok=True)


def load(cluster: Cluster, images: dict[str, Path]) -> None:
    """Imports both images on every node."""
    for name in (RUNTIME_IMAGE, OPERATOR_IMAGE):
        cluster.load_image(name, images[name])


def measure_chart(report: Report, stack: Stack) -> None:
    """`helm install --wait`; an installed chart is removed first unless the cluster is not ours."""
    release = ["uninstall", "tandem", "--namespace", SYSTEM_NAMESPACE, "--ignore-not-found", "--wait"]
    if stack.cluster.kind != "current":
        stack.cluster.helm(*release)
    with timed(report, "chart", "install_seconds", "until the operator is ready"):
        stack.install()


def measure_fleets(report: Report, stack: Stack) -> None:
    """Apply to Ready and to the first token, for real weights and for emulated pods; their memory while they serve."""
    stack.cluster.kubectl("create", "namespace", NAMESPACE, check=False)
    try:
        for executor, spec in FLEETS.items():
            section = f"cluster, {executor}"
            manifest = (
                "{apiVersion: tandem.dev/v1alpha1, kind: InferenceDeployment, "
                f"metadata: {{name: {executor}}}, spec: {{{spec}, prefill: {{replicas: 1}}, decode: {{replicas: 1}}}}}}"
            )
            started = time.monotonic()
            with timed(report, section, "apply_to_ready_seconds"):
                stack.apply(manifest, NAMESPACE)
                stack.wait_ready(executor, NAMESPACE)
            with stack.forward(f"service/{executor}", NAMESPACE) as url:
                ready = time.monotonic() - started
                report.add(section, "apply_to_first_token_seconds", ready + first_token_seconds(url, executor))
                report.add(section, "second_ttft_seconds", first_token_seconds(url, executor), "through port-forward")
            for pod in stack.pods(NAMESPACE, executor):
                role = pod["metadata"]["labels"]["tandem.dev/role"]
                add_pod_memory(report, stack, section, role, NAMESPACE, pod["metadata"]["name"])
        for pod in stack.get("pods", namespace=SYSTEM_NAMESPACE)["items"]:
            add_pod_memory(report, stack, "cluster", "operator", SYSTEM_NAMESPACE, pod["metadata"]["name"])
    finally:
        stack.cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", check=False)


def add_pod_memory(report: Report, stack: Stack, section: str, role: str, namespace: str, pod: str) -> None:
    """VmRSS of the container's first process, read inside of it: the same figure as for local processes."""
    read = "print(open('/proc/1/status').read())"
    try:
        status = stack.cluster.kubectl("exec", "--namespace", namespace, pod, "--", "python3", "-c", read)
    except ClusterError as error:
        report.leave_out(f"memory of {role} ({section})", str(error))
        return
    rss_bytes = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))
    report.add(section, f"{role}_rss_bytes", rss_bytes, "VmRSS", memory_limit(section, role))


def measure_cluster(report: Report, options: argparse.Namespace) -> None:
    """All stages that need a cluster; a cluster that was not up before goes down again unless --keep."""
    cluster = open_cluster(options.cluster, nodes=options.nodes, yes=options.yes, kubeconfig=options.kubeconfig)
    if cluster.kind == "processes":
        raise ClusterError("no cluster can be had here; ./e2e/cluster/run doctor says what is missing")
    if options.fresh and cluster.kind != "current":
        cluster.down()
    started = time.monotonic()
    ours = measure_cluster_up(report, cluster)
    try:
        stack = Stack(cluster, options.operator_image, options.runtime_image)
        if (options.operator_image, options.runtime_image) == (OPERATOR_IMAGE, RUNTIME_IMAGE):
            measure_images(report, cluster)
        else:
            report.leave_out("images", "they were named, so the nodes pull them")
        measure_chart(report, stack)
        measure_fleets(report, stack)
        report.add(
            "cluster", "all_stages_seconds", time.monotonic() - started, f"{cluster.kind}, {options.nodes} node(s)"
        )
    finally:
        if ours and not options.keep:
            with timed(report, "cluster", "down_seconds"):
                cluster.down()


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="./tests/run bench skeleton", description=__doc__)
    parser.add_argument("--cluster", default="auto", choices=["auto", "kind", "local", "current", "processes"])
    parser.add_argument("--kubeconfig", type=Path, help="for --cluster current")
    parser.add_argument("--operator-image", default=OPERATOR_IMAGE, help="with --cluster current: one that it can pull")
    parser.add_argument("--runtime-image", default=RUNTIME_IMAGE, help="with --cluster current: one that it can pull")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument(
        "--fresh", action="store_true", help="take an existing cluster down first, so that `up` is whole"
    )
    parser.add_argument("--keep", action="store_true", help="leave the cluster running")
    parser.add_argument("--yes", action="store_true", help="install missing Debian packages without asking")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Exit code: 0 also when the cluster was left out, 1 when a stage failed."""
    options = parse(argv)
    report = Report("skeleton")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was brought up goes down again
    try:
        return measure(report, options)
    finally:
        report.finish()


def measure(report: Report, options: argparse.Namespace) -> int:
    """All stages; returns the exit code."""
    measure_emulated_pod(report)
    for executor in ("emulated", "torch"):
        measure_processes(report, executor)
    if options.cluster == "processes":
        report.leave_out("cluster, images, chart, pods", "asked for local processes only")
        return 0
    try:
        measure_cluster(report, options)
    except (ClusterError, TooSlow, RuntimeError, OSError) as error:
        report.leave_out("what follows in the cluster", str(error))
        return 0 if options.cluster == "auto" and "no cluster can be had" in str(error) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
