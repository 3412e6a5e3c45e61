"""`tandem plan`: which hardware a model takes, why, and at what price, before anything is applied."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, Final

import yaml

from tandem_operator.cli import plan_input as given
from tandem_operator.cli.plan_manifest import UNKNOWN_URI, manifest, remarks
from tandem_operator.cli.plan_table import show
from tandem_operator.placement.candidates import Refusal
from tandem_operator.placement.choose import decide, survey
from tandem_operator.placement.problem import Problem

EXAMPLES: Final = """examples:
  tandem plan --model ./Llama-3.1-70B/config.json --slo ttft=2s,tpot=50ms --hardware h100-sxm,h200-sxm,l40s
  tandem plan --model config.json --hardware h100-sxm,l40s --nodes h100-sxm=4x8,l40s=10x4 --load 5x2048/256
  tandem plan --model config.json --hardware h100-sxm -o yaml | kubectl apply -f -
  tandem plan -f deployment.yaml --model config.json --cluster
"""


def add_parser(commands: Any) -> None:
    """`commands`: what `add_subparsers` returned."""
    parser = commands.add_parser(
        "plan",
        help="choose hardware for a model: what fits, how fast, at what price, and why",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, model = parser.add_argument, parser.add_argument_group("the model and what is asked of it").add_argument
    model("-m", "--model", metavar="FILE", help="config.json of the model, or the folder that holds it")
    model("-f", "--file", metavar="FILE", help="YAML of an InferenceDeployment: model, slo, pools")
    model("--slo", metavar="LIST", help="objectives (default: ttft=2s,tpot=50ms,attainment=99)")
    load = "requests per second x prompt / answer tokens, such as 5x2048/256 (default: 2048/256, any rate)"
    model("--load", metavar="RPSxIN/OUT", default="", help=load)
    model("--max-context", metavar="TOKENS", type=int, help="longest prompt plus answer (default: the model's own)")
    weights = ["None", "Int8Dynamic", "Int8", "Int4", "FP8", "Auto"]
    model("--quantization", choices=weights, help="how weights are held (default: None, as stored)")
    fleet = parser.add_argument_group("the fleet").add_argument
    fleet("--hardware", metavar="LIST", help="hardware classes, such as h100-sxm,l40s (default: all with a price)")
    nodes = "nodes x devices, such as h100-sxm=4x8+2x4,l40s=10x4 (default: no limit)"
    fleet("--nodes", metavar="LIST", default="", help=nodes)
    fleet("--classes", metavar="FILE", help="YAML of HardwareClasses beside the bundled ones")
    fleet("--network", metavar="GBITS", type=float, help="Gbit/s of one device to other nodes, for all classes")
    fleet("--cluster", action="store_true", help="nodes and HardwareClasses of the cluster in $KUBECONFIG")
    fixed = parser.add_argument_group("what is fixed").add_argument
    for role in ("prefill", "decode"):
        fixed(f"--{role}", metavar="LIST", default="", help="such as class=h100-sxm+h200-sxm,gpus=2,tp=2,replicas=3")
    engines = "what runs it, as it is in this version (default: any; of a manifest: Torch if it can, else Emulated)"
    fixed("--executor", choices=["any", "Torch", "Emulated"], help=engines)
    add("-o", "--output", choices=["table", "yaml", "json"], default="table", help="table, or a ready manifest")
    add("--name", default="model", help="metadata.name of the manifest (default: %(default)s)")
    add("--uri", help="model.uri of the manifest, such as hf://organisation/repository")


def run(options: argparse.Namespace) -> int:
    """Exit code: 0 placed, 1 wrong input, 3 nothing can work."""
    try:
        source = given.read_manifest(options.file) if options.file else None
        fleet = given.read_cluster(source) if options.cluster else given.read_fleet(options)
        problem = given.read_problem(options, source, fleet)
    except given.WrongInput as error:
        print(f"tandem plan: {error}", file=sys.stderr)
        return 1
    return _answer(options, source, problem, fleet.notes)


def _answer(
    options: argparse.Namespace, source: given.Manifest | None, problem: Problem, notes: tuple[str, ...]
) -> int:
    if options.output != "table":
        problem = given.for_a_manifest(problem)
    found = survey(problem)
    choice = decide(problem, found)
    if options.output == "table":
        show(problem, found, choice, notes, [*remarks(problem, choice)])
        return 3 if isinstance(choice, Refusal) else 0
    if isinstance(choice, Refusal):
        print(f"tandem plan: {choice.reason}", file=sys.stderr)
        return 3
    body: dict[str, Any] = manifest(problem, choice, source, options)
    if body["spec"]["model"].get("uri") == UNKNOWN_URI:
        print(f"tandem plan: model.uri is {UNKNOWN_URI}: set it, or give --uri", file=sys.stderr)
    for note in remarks(problem, choice):
        print(f"tandem plan: {note}", file=sys.stderr)
    if options.output == "json":
        print(json.dumps(body, indent=2))
    else:
        print(yaml.safe_dump(body, sort_keys=False, width=120), end="")
    return 0
