from __future__ import annotations

import importlib.util
import marshal
import os
import shutil
from pathlib import Path

import pytest

from e2e.images import packages, tools
from e2e.images.cache import drop_unused, make_folder
from e2e.images.code import code_layer
from e2e.images.layers import layer_key
from e2e.images.layout import HOME, ROOT, SITE_PACKAGES
from e2e.images.model import model_layer
from e2e.images.oci import File
from e2e.images.packages import Requirements, read_requirements
from e2e.images.tools import BuildError


def make_checkout(root: Path) -> Path:
    for package in ("operator/tandem_operator", "runtime/tandem_runtime"):
        (root / package / "inner").mkdir(parents=True)
        (root / package / "__init__.py").write_text("")
        (root / package / "inner" / "work.py").write_text("def work() -> int:\n    return 1\n")
        (root / package / "inner" / "data.json").write_text("{}")
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def test_the_code_layer_has_sources_data_bytecode_and_commands(tmp_path: Path) -> None:
    source = code_layer(tmp_path / "cache", make_checkout(tmp_path / "checkout")).source
    assert not isinstance(source, Path)
    work = f"{SITE_PACKAGES}/tandem_runtime/inner"
    assert source[f"{work}/data.json"] == b"{}"
    compiled = source[f"{work}/__pycache__/{Path(importlib.util.cache_from_source('work.py')).name}"]
    assert isinstance(compiled, bytes)
    assert compiled[4:8] == bytes([1, 0, 0, 0]), "bytecode that is valid without looking at the source"
    assert marshal.loads(compiled[16:]).co_filename == f"/{work}/work.py"
    command = source[f"{HOME}/bin/tandem-runtime"]
    assert isinstance(command, File)
    assert command.mode == 0o755
    assert b"from tandem_runtime.__main__ import main" in command.content


def test_the_code_layer_changes_with_the_code_and_only_then(tmp_path: Path) -> None:
    checkout, cache = make_checkout(tmp_path / "checkout"), tmp_path / "cache"
    before = layer_key(code_layer(cache, checkout))
    assert before == layer_key(code_layer(tmp_path / "other cache", checkout))
    compiled = len(list((cache / "bytecode").iterdir()))
    (checkout / "runtime/tandem_runtime/inner/work.py").write_text("def work() -> int:\n    return 2\n")
    assert layer_key(code_layer(cache, checkout)) != before
    assert len(list((cache / "bytecode").iterdir())) == compiled + 1


def test_code_that_does_not_compile_is_named(tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path / "checkout")
    (checkout / "operator/tandem_operator/inner/work.py").write_text("def work(:\n")
    with pytest.raises(BuildError, match=r"work\.py does not compile"):
        code_layer(tmp_path / "cache", checkout)


def make_model_checkout(root: Path, weights: str) -> Path:
    models = root / "runtime/tandem_runtime/models"
    models.mkdir(parents=True)
    for package in (models, models.parent):
        (package / "__init__.py").touch()
    (models.parent / "other.py").touch()
    (models / "weights.py").write_text(f"WEIGHTS = {weights!r}\n")
    (models / "make_model.py").write_text(
        "from tandem_runtime.models.weights import WEIGHTS\n"
        "def make_model(directory):\n"
        "    directory.mkdir()\n"
        "    (directory / 'model.safetensors').write_text(WEIGHTS)\n"
    )
    return root


def test_the_sample_model_is_made_again_when_a_file_it_imports_changes_and_only_then(tmp_path: Path) -> None:
    checkout, cache = make_model_checkout(tmp_path / "checkout", "one"), tmp_path / "cache"
    sources = checkout / "runtime/tandem_runtime"
    first = model_layer(cache, checkout)
    assert isinstance(first.source, Path)
    made = first.source.stat().st_ino
    (sources / "other.py").write_text("changed = True\n")
    again = model_layer(cache, checkout)
    assert isinstance(again.source, Path)
    assert (again.key, again.source.stat().st_ino) == (first.key, made)

    weights = sources / "models/weights.py"
    weights.write_text("# the same model\n" + weights.read_text())
    rewritten = model_layer(cache, checkout)
    assert rewritten.source != first.source
    assert rewritten.key == first.key, "the same bytes are the same layer"

    weights.write_text("WEIGHTS = 'two'\n")
    assert model_layer(cache, checkout).key != first.key


def test_packages_are_installed_anew_when_what_they_are_made_of_changes() -> None:
    one = Requirements(("aiohttp>=3",), ("torch==2",), "")
    same = Requirements(("aiohttp>=3",), ("torch==2",), "")
    constrained = Requirements(("aiohttp>=3",), ("torch==2",), "aiohttp==3.12\n")
    other_torch = Requirements(("aiohttp>=3",), ("torch==3",), "")
    assert one.key("base") == same.key("base") == other_torch.key("base")
    assert one.key("torch") != other_torch.key("torch")
    assert len({one.key("base"), constrained.key("base"), one.key("torch"), constrained.key("torch")}) == 4


def test_the_operator_image_needs_no_torch() -> None:
    requirements = read_requirements()
    assert not any(dependency.startswith("torch") for dependency in requirements.base)
    assert any(dependency.startswith("torch==") for dependency in requirements.torch)


def test_images_get_the_versions_the_tests_run_with_and_never_our_own() -> None:
    versions = packages.installed_versions().split()
    assert any(version.startswith("pytest==") for version in versions)
    assert not any(version.startswith("tandem") for version in versions)


def test_a_folder_is_made_once_and_not_at_all_when_its_making_fails(tmp_path: Path) -> None:
    calls: list[Path] = []

    def fill(folder: Path) -> None:
        calls.append(folder)
        (folder / "content").touch()
        if len(calls) == 1:
            raise BuildError("no disk")

    with pytest.raises(BuildError):
        make_folder(tmp_path / "made", fill)
    assert [path.name for path in tmp_path.iterdir()] == [".made.lock"]
    for _ in range(2):
        assert (make_folder(tmp_path / "made", fill) / "content").is_file()
    assert len(calls) == 2


def test_what_nobody_used_is_dropped_and_the_rest_stays(tmp_path: Path) -> None:
    for name, age_seconds in (("old", 100), ("new", 1)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (1000 - age_seconds, 1000 - age_seconds))
    assert drop_unused(tmp_path, keep_seconds=50, now=1000) == [tmp_path / "old"]
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize(
    ("environment", "user_id", "agreed", "allowed"),
    [({"CI": "true"}, 0, False, True), ({}, 0, True, True), ({}, 0, False, False), ({"CI": "true"}, 1000, True, False)],
)
def test_packages_are_installed_by_root_under_ci_or_when_agreed(
    environment: dict[str, str], user_id: int, agreed: bool, allowed: bool
) -> None:
    assert tools.may_install(environment, user_id, agreed) is allowed


def test_missing_programs_are_named_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "find_tool", lambda name: None)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(BuildError, match="apt-get install -y --no-install-recommends binutils busybox-static gcc"):
        tools.ensure_tools()


def test_a_command_that_fails_shows_what_it_said() -> None:
    with pytest.raises(BuildError, match=r"ended with 3:\nno such thing"):
        tools.run(["sh", "-c", "echo no such thing >&2; exit 3"])
