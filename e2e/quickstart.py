"""The first minute with Tandem: cluster, images, chart, a sample, and its first words, with progress on the way."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from e2e.cluster import ClusterError, doctor, open_cluster
from e2e.cluster.current import NoCluster
from e2e.cluster.local import LocalCluster
from e2e.processes import stream_from_processes
from e2e.stack import ROOT, Stack, TooSlow, stream_chat

SAMPLE = ROOT / "e2e/samples/chat.yaml"
PROMPT = "Tell me about the sea."


class Steps:
    """Numbered steps with the seconds that each took."""

    def __init__(self, started: float, clock: Callable[[], float] = time.time) -> None:
        self.started, self.clock = started, clock

    def say(self, text: str) -> None:
        """One line with the seconds since the start."""
        print(f"{self.clock() - self.started:6.1f} s  {text}", flush=True)


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(prog="./e2e/quickstart", description=__doc__)
    parser.add_argument(
        "--cluster",
        default="auto",
        choices=["auto", "kind", "local", "current"],
        help="kind (Docker), local (real Kubernetes built from Go modules; root), current (--kubeconfig); auto"
        " (default) takes the first that this machine can do, else shows the runtime as local processes",
    )
    parser.add_argument("--kubeconfig", type=Path, help="for --cluster current")
    parser.add_argument("--operator-image", help="for --cluster current: where its nodes can pull the operator from")
    parser.add_argument("--runtime-image", help="for --cluster current: likewise, the runtime")
    parser.add_argument("--nodes", type=int, default=1, help="nodes of a new cluster (default 1)")
    parser.add_argument("--keep", action="store_true", help="leave the cluster running at the end")
    parser.add_argument("--yes", action="store_true", help="install missing Debian packages without asking")
    parser.add_argument("--started", type=float, default=time.time(), help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def may_install(yes: bool) -> bool:
    """Whether missing Debian packages may be installed: asked for, agreed to, or nobody is there to ask."""
    missing = doctor.find_missing()
    if yes or not missing or not sys.stdin.isatty():
        return True
    names = " ".join(package.name for package in missing)
    return input(f"A local cluster needs the Debian packages {names}. Install them now? [Y/n] ").lower() in (
        "",
        "y",
        "yes",
    )


def images(options: argparse.Namespace) -> dict[str, str]:
    """Images that were named; a cluster that was not made here cannot be given ours."""
    named = {"operator_image": options.operator_image, "runtime_image": options.runtime_image}
    if options.cluster == "current" and not all(named.values()):
        raise ClusterError(
            "--cluster current needs --operator-image and --runtime-image: build operator/Dockerfile and"
            " runtime/Dockerfile and push them where the cluster's nodes can pull from"
        )
    return {key: value for key, value in named.items() if value}


def on_cluster(stack: Stack, steps: Steps) -> None:
    """Everything from images to the first words."""
    steps.say("images: building what changed, importing it on the nodes")
    content = stack.load_images()
    steps.say("chart: helm install of the operator and its CRD")
    stack.install(content)
    steps.say(f"kubectl apply -f {SAMPLE.relative_to(ROOT)}")
    stack.apply(SAMPLE.read_text())
    stack.wait_ready("chat", tell=lambda line: steps.say(f"  {line}"))
    with stack.forward("service/chat") as url:
        steps.say(f"POST /v1/chat/completions, streamed; prompt: {PROMPT!r}")
        sys.stdout.write("\n          ")
        for text in stream_chat(url, "chat", PROMPT):
            sys.stdout.write(text)
            sys.stdout.flush()
    print("\n\n          (a toy checkpoint without sense, on real weights, through two real pods)\n")
    print(stack.cluster.kubectl("get", "infd"))
    print(stack.cluster.kubectl("get", "pods", "--output", "wide"))
    steps.say("done")


def next_steps(kept: bool, options: argparse.Namespace) -> str:
    """What to try next, as commands that can be pasted."""
    run = "./e2e/cluster/run"
    if not kept:
        return f"The cluster is gone again. To keep one: ./e2e/quickstart --keep --cluster {options.cluster}"
    return f"""Try next:
  {run} kubectl explain infd.spec --recursive
  {run} kubectl patch infd chat --type merge -p '{{"spec":{{"decode":{{"replicas":2}}}}}}'
  {run} kubectl get infd chat --watch
  {run} kubectl delete pod -l tandem.dev/role=prefill
  {run} kubectl port-forward svc/chat 8000    and then:
  curl -N localhost:8000/v1/chat/completions -H 'content-type: application/json' \\
    -d '{{"model":"chat","stream":true,"messages":[{{"role":"user","content":"hello"}}]}}'
  {run} down"""


def main(argv: list[str]) -> int:
    """Exit code: 0 when the words came, 1 with a sentence when something is in the way."""
    options = arguments(argv)
    steps = Steps(options.started)
    steps.say("environment ready")
    try:
        cluster = open_cluster(options.cluster, nodes=options.nodes, yes=options.yes, kubeconfig=options.kubeconfig)
        if isinstance(cluster, NoCluster):
            cluster.up()
            return stream_from_processes(PROMPT)
        steps.say(f"cluster: {cluster.kind}")
        if isinstance(cluster, LocalCluster):
            cluster.yes = may_install(options.yes)
        kept = options.keep or options.cluster == "current"
        try:
            cluster.up()
            on_cluster(Stack(cluster, **images(options)), steps)
        finally:
            if not kept:
                cluster.down()
        print(next_steps(kept, options))
    except KeyboardInterrupt:
        print("\nstopped; run it again to go on, or ./e2e/cluster/run down to remove what is there", file=sys.stderr)
        return 130
    except (ClusterError, TooSlow, RuntimeError, OSError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
