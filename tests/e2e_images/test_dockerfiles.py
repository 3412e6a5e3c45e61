from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from e2e.images.layout import (
    ENTRYPOINTS,
    ENVIRONMENT,
    HOME,
    MODEL,
    OPERATOR_IMAGE,
    ROOT,
    RUNTIME_IMAGE,
    USER_ID,
    image_config,
)

FILES = {RUNTIME_IMAGE: ROOT / "runtime/Dockerfile", OPERATOR_IMAGE: ROOT / "operator/Dockerfile"}


def last_stage(path: Path) -> str:
    return path.read_text().rpartition("\nFROM ")[2]


@pytest.mark.parametrize("name", FILES)
def test_dockerfile_and_builder_give_the_image_the_same_start(name: str) -> None:
    stage = last_stage(FILES[name])
    entrypoint = re.search(r"^ENTRYPOINT (.*)$", stage, re.MULTILINE)
    assert entrypoint
    assert tuple(json.loads(entrypoint[1])) == ENTRYPOINTS[name] == image_config(name).entrypoint
    assert f"\nUSER {USER_ID}:{USER_ID}\n" in stage
    assert image_config(name).user == f"{USER_ID}:{USER_ID}"
    assert f"\nWORKDIR {image_config(name).working_dir}\n" in stage


@pytest.mark.parametrize("name", FILES)
def test_dockerfile_and_builder_give_the_image_the_same_environment(name: str) -> None:
    line = re.search(r"^ENV (.*)$", last_stage(FILES[name]), re.MULTILINE)
    assert line
    assert dict(pair.split("=", 1) for pair in line[1].split()) == ENVIRONMENT


@pytest.mark.parametrize("name", FILES)
def test_dockerfiles_put_the_packages_where_the_builder_puts_them(name: str) -> None:
    assert f"COPY --from=build /{HOME} /{HOME}\n" in last_stage(FILES[name])


def test_only_the_runtime_image_has_the_sample_model() -> None:
    copy = f"COPY --from=build /{MODEL} /{MODEL}\n"
    assert copy in last_stage(FILES[RUNTIME_IMAGE])
    assert copy not in last_stage(FILES[OPERATOR_IMAGE])


@pytest.mark.parametrize("name", FILES)
def test_everything_a_dockerfile_copies_is_let_through_by_dockerignore(name: str) -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for source in re.findall(r"^COPY (?!--from)(\S+) ", FILES[name].read_text(), re.MULTILINE):
        assert any(path == source or path.startswith(f"{source}/") for path in allowed), source
        assert (ROOT / source).exists()
