"""The shape of the tree holds: nothing of ours shadows the standard library, nothing strays to the top level."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOP_LEVEL = {"pyproject.toml", "README.md", "operator", "runtime", "charts", "crds", "tests", "e2e"}


@pytest.mark.parametrize("folder", [".", "operator", "operator/tandem_operator", "runtime", "tests", "e2e", "/"])
def test_import_operator_means_the_standard_library_from_every_folder(folder: str) -> None:
    program = "import operator, tandem_operator; print(operator.itemgetter(0)([7]), operator.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT / folder, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("7 ")
    assert str(ROOT) not in done.stdout.replace(str(ROOT / ".venv"), "")


def test_the_operator_folder_is_no_package() -> None:
    assert not (ROOT / "operator/__init__.py").exists()


def test_the_top_level_holds_what_the_guide_names_and_nothing_else() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    assert {line.split("/")[0] for line in tracked if line and not line.startswith(".")} <= TOP_LEVEL


def test_light_programs_import_no_torch() -> None:
    program = (
        "import sys, tandem_runtime.router.command, tandem_runtime.engine.emulated_executor, tandem_runtime.__main__,"
        " tandem_operator.reconcile; print([m for m in ('torch', 'numpy', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
