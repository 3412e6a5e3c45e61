"""Command line of the cluster: `e2e/cluster/run up|down|status|doctor|kubectl|helm`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from e2e.cluster import doctor
from e2e.cluster.choice import KINDS, SUBNETS_VARIABLE, open_cluster
from e2e.cluster.errors import ClusterError
from e2e.cluster.layout import DEFAULT_NAME, DEFAULT_SUBNETS, MAX_NODES

PASSED_ON = ("kubectl", "helm")
EPILOG = f"""
kinds of cluster:
  kind      in Docker, with kind (not run where this was written)
  local     on this machine without Docker: Kubernetes is built once from Go modules (about 10 minutes on two cores);
            real kubelets on containerd, each node in namespaces of its own; needs root and Go
  current   the cluster of --kubeconfig or $KUBECONFIG; never made nor removed
  auto      --kubeconfig when given, else kind, else local, else none, saying what is left out

examples:
  e2e/cluster/run up --nodes 3 --yes
  e2e/cluster/run kubectl get pods -A
  e2e/cluster/run down

{SUBNETS_VARIABLE} moves the local cluster's networks (machines, pods, Services) from {DEFAULT_SUBNETS}.
"""


def parse_arguments(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Options of ours, and what follows "kubectl" or "helm" untouched."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--cluster", choices=KINDS, default=argparse.SUPPRESS, help="kind of cluster (auto)")
    options.add_argument("--nodes", type=int, default=argparse.SUPPRESS, help=f"1 to {MAX_NODES} (1)")
    options.add_argument("--kubeconfig", type=Path, default=argparse.SUPPRESS, help="a cluster that exists")
    options.add_argument("--name", default=argparse.SUPPRESS, help=f"of the cluster ({DEFAULT_NAME})")
    options.add_argument(
        "--yes", action="store_true", default=argparse.SUPPRESS, help="install Debian packages if any lack"
    )
    parser = argparse.ArgumentParser(
        prog="e2e/cluster/run",
        description="A Kubernetes cluster for everyone.",
        epilog=EPILOG,
        parents=[options],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("up", "bring the cluster up or repair it; nothing happens when it is up"),
        ("down", "remove it; caches stay"),
        ("status", "what runs; exit code 1 when it is not healthy"),
        ("doctor", "what this machine lacks and the command that installs it"),
        ("kubectl", "kubectl on this cluster; everything after it is passed on"),
        ("helm", "helm on this cluster; everything after it is passed on"),
    ):
        commands.add_parser(name, help=text, parents=[options], description=text)
    at = next((index for index, word in enumerate(arguments) if word in PASSED_ON), len(arguments) - 1)
    parsed = parser.parse_args(arguments[: at + 1])
    return parsed, arguments[at + 1 :]


def main(arguments: list[str]) -> int:
    """Exit code: 0 fine, 1 not healthy or something is missing, 2 wrong options, 130 interrupted."""
    parsed, rest = parse_arguments(arguments)
    try:
        if parsed.command == "doctor":
            return show_findings()
        cluster = open_cluster(
            getattr(parsed, "cluster", "auto"),
            nodes=getattr(parsed, "nodes", 1),
            yes=getattr(parsed, "yes", False),
            kubeconfig=getattr(parsed, "kubeconfig", None),
            name=getattr(parsed, "name", DEFAULT_NAME),
        )
        if parsed.command == "up":
            cluster.up()
        elif parsed.command == "down":
            cluster.down()
        elif parsed.command == "status":
            healthy, text = cluster.status()
            print(text)
            return 0 if healthy else 1
        else:
            cluster.execute(rest, cluster.kubectl_program() if parsed.command == "kubectl" else cluster.helm_program())
        return 0
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the next `up` or `down` repairs or removes what is half done", file=sys.stderr)
        return 130


def show_findings() -> int:
    """Print the table of `doctor`; 1 when something that a local cluster needs is missing."""
    from rich.console import Console  # 0.1 s, which no other command needs
    from rich.table import Table

    findings = doctor.examine()
    table = Table(title="what this machine has", title_justify="left")
    for column in ("what", "needed for", "found", "how to get it"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        style = "" if finding.fine else "dim" if finding.optional else "bold red"
        table.add_row(finding.what, finding.purpose, finding.found, finding.remedy, style=style)
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    if missing := doctor.find_missing():
        print(f"\n{doctor.install_command(missing)}")
    return int(any(not finding.fine and not finding.optional for finding in findings))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
