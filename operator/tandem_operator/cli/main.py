"""`tandem`: what can be said without a cluster, for people and for pipelines."""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version

import yaml

from tandem_operator.api import names
from tandem_operator.api.crd import crd_text
from tandem_operator.api.deployment import parse_deployment
from tandem_operator.cli import plan, simulate
from tandem_operator.config import RenderSettings
from tandem_operator.render.objects import render


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="tandem",
        description="Tandem serves language models on Kubernetes. What can be said without a cluster:",
        epilog="Example: tandem render -f e2e/samples/chat.yaml | kubectl diff -f -",
    )
    parser.add_argument("--version", action="version", version=f"tandem {version('tandem-serving')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("crd", help="print the CustomResourceDefinition, as `kubectl apply -f -` takes it")
    rendering = commands.add_parser("render", help="print the objects that the operator would make; needs no cluster")
    rendering.add_argument("-f", "--file", required=True, help="YAML of InferenceDeployments; - reads standard input")
    rendering.add_argument(
        "--runtime-image",
        default=RenderSettings.default_runtime_image,
        metavar="IMAGE",
        help="image for specs that name none (default: %(default)s)",
    )
    plan.add_parser(commands)
    simulate.add_parser(commands)
    options = parser.parse_args(arguments)
    if options.command == "plan":
        return plan.run(options)
    if options.command == "simulate":
        return simulate.run(options)
    if options.command == "crd":
        print(crd_text(), end="")
        return 0
    try:
        print(render_file(options.file, options.runtime_image), end="")
    except OSError as error:
        print(f"tandem render: {error.filename or options.file}: {error.strerror}", file=sys.stderr)
        return 1
    except yaml.YAMLError as error:
        print(f"tandem render: {options.file} is no YAML: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"tandem render: {error}", file=sys.stderr)
        return 1
    return 0


def render_file(path: str, image: str) -> str:
    """YAML of the children of every InferenceDeployment in the file. Raises ValueError for those that are wrong."""
    if path == "-":
        text = sys.stdin.read()
    else:
        with open(path) as file:
            text = file.read()
    objects = []
    for body in filter(None, yaml.safe_load_all(text)):
        if not isinstance(body, dict) or body.get("kind") != names.KIND:
            kind = body.get("kind") if isinstance(body, dict) else None
            raise ValueError(f"{path} holds {f'a {kind}' if kind else 'something'} that is no {names.KIND}; remove it")
        infd = parse_deployment(body, strict=True)
        settings = RenderSettings(default_runtime_image=image)
        chosen = infd.spec.runtime.image or image
        objects += render(infd, names.revision_of(infd.revision_inputs(chosen)), chosen, settings)
    if not objects:
        raise ValueError(f"{path} holds no {names.KIND}; e2e/samples has some")
    return yaml.safe_dump_all(objects, sort_keys=False, width=120)


if __name__ == "__main__":
    sys.exit(main())
