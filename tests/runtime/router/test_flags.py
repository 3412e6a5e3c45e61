"""Flags of `router` and `serve` that reach the laws."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from tandem_runtime.contracts.classes import write_classes
from tandem_runtime.contracts.goodput import SloClass
from tandem_runtime.router import command, serve

CHAT = SloClass(name="chat", ttft_base_s=1.0, tpot_s=0.05)


def parsed(module: object, *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)  # type: ignore[attr-defined]
    return parser.parse_args(words)


def test_serve_hands_the_classes_to_its_router_alone(tmp_path: Path) -> None:
    file = tmp_path / "classes.json"
    file.write_bytes(write_classes([CHAT]))
    args = parsed(serve, "--executor", "emulated", "--classes", str(file))
    serve.check(args)
    router, *pods = serve.make_children(args, serve.make_plan(8000, 1, 1), tmp_path)
    words = list(router._arguments)
    assert words[words.index("--classes") + 1] == str(file)
    assert all("--classes" not in child._arguments for child in pods)


def test_a_wrong_file_of_classes_is_said_before_anything_starts(tmp_path: Path) -> None:
    file = tmp_path / "classes.json"
    file.write_text('{"classes": []}')
    with pytest.raises(serve.ServeError, match=r"--classes: .*names no class"):
        serve.check(parsed(serve, "--executor", "emulated", "--classes", str(file)))


def test_the_laws_that_a_user_may_change_have_flags_and_their_defaults_change_nothing() -> None:
    required = ("--endpoints", "x", "--model-name", "m", "--revision", "r", "--token-file", "t")
    default = parsed(command, *required)
    assert (default.classes, default.shed_late, default.short_prompt_tokens) == (None, False, 0)
    changed = parsed(command, *required, "--shed-late", "--short-prompt-tokens", "64")
    assert (changed.shed_late, changed.short_prompt_tokens) == (True, 64)
