"""`tandem-runtime ROLE ...`: imports only what the role needs."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass

from tandem_runtime.contracts.flags import OneLineParser


@dataclass(frozen=True, slots=True)
class Command:
    """`module` offers add_arguments(parser) and run(args) -> exit code."""

    module: str
    help: str


COMMANDS = {
    "prefill": Command("tandem_runtime.server.command", "compute prompts and send their KV pages to decode pods"),
    "decode": Command("tandem_runtime.server.command", "take KV pages from prefill pods and generate"),
    "both": Command("tandem_runtime.server.command", "prompts, generation and the OpenAI API in one process"),
    "router": Command("tandem_runtime.router.command", "the OpenAI API in front of prefill and decode pods"),
    "serve": Command("tandem_runtime.router.serve", "router, prefill and decode as processes of this machine"),
    "keys": Command("tandem_runtime.router.keys_command", "make an API key and its entry of the Secret"),
    "fetch": Command("tandem_runtime.fetch.command", "bring a model to a folder"),
    "bench": Command("tandem_runtime.bench.command", "measure a server under an open-loop load"),
    "profile": Command("tandem_runtime.bench.profile", "say where the time of a model's steps goes"),
    "quality": Command("tandem_runtime.bench.quality", "say what int8 costs in perplexity and agreement"),
    "make-model": Command("tandem_runtime.models.make_model", "write a small deterministic model"),
}


def main(argv: list[str] | None = None) -> int:
    """The exit code."""
    words = sys.argv[1:] if argv is None else argv
    parser = OneLineParser(
        "tandem-runtime",
        description="Serves a language model with prompts and answers computed by separate processes.",
        epilog="To try it: tandem-runtime make-model ./tiny && tandem-runtime serve --model ./tiny",
    )
    commands = parser.add_subparsers(dest="role", metavar="COMMAND", required=True)
    chosen = next((word for word in words if word in COMMANDS), None)
    for name, command in COMMANDS.items():
        child = commands.add_parser(
            name, help=command.help, description=f"{command.help[0].upper()}{command.help[1:]}."
        )
        if name == chosen:
            importlib.import_module(command.module).add_arguments(child)
    args = parser.parse_args(words)
    code: int = importlib.import_module(COMMANDS[args.role].module).run(args)
    return code


if __name__ == "__main__":
    sys.exit(main())
