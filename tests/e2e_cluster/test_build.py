from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from e2e.cluster import build
from e2e.cluster.errors import ClusterError


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "sources"
    shutil.copytree(build.SOURCES, folder)
    return folder


@pytest.mark.parametrize("name", ["go.mod", "go.sum", "main.go"])
def test_the_key_changes_with_every_source_file(sources: Path, name: str) -> None:
    before = build.content_key(build.KUBERNETES, sources)
    assert before == build.content_key(build.KUBERNETES)
    (sources / name).write_text((sources / name).read_text() + "\n")
    assert build.content_key(build.KUBERNETES, sources) != before


def test_the_key_of_a_module_changes_with_its_version() -> None:
    other = replace(build.HELM, package=build.HELM.package + "1")
    assert build.content_key(other) != build.content_key(build.HELM)


def test_the_version_is_stamped_where_helm_and_kubectl_read_it() -> None:
    flags = build.version_flags("1.37.1")
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
        assert f"-X {package}.gitVersion=v1.37.1" in flags
        assert f"-X {package}.gitMinor=37" in flags


def test_go_mod_names_the_version_that_is_stamped() -> None:
    assert f"k8s.io/kubernetes v{build.KUBERNETES_VERSION}" in (build.SOURCES / "go.mod").read_text()


def use_go(monkeypatch: pytest.MonkeyPatch, go: Path | None, version: tuple[int, ...] = (1, 26, 8)) -> None:
    monkeypatch.setattr(build, "find_go", lambda: None if go is None else (str(go), version))


def fake_go(folder: Path, build_script: str) -> Path:
    go = folder / "go"
    go.write_text(f'#!/bin/bash\nif [ "$1" = env ]; then echo {folder}/gocache; exit; fi\n{build_script}\n')
    go.chmod(0o755)
    return go


PROGRAM = build.Program("tool", "example.com/tool@v1.0.0", 3, 1)


def test_a_program_is_built_once_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_go(monkeypatch, fake_go(tmp_path, 'echo a/b >&2; echo run >> "$0.runs"; echo tool > "$GOBIN/tool"'))
    said: list[str] = []
    first = build.build(PROGRAM, said.append, tmp_path)
    assert first.read_text() == "tool\n"
    assert build.build(PROGRAM, said.append, tmp_path) == first
    assert (tmp_path / "go.runs").read_text() == "run\n"
    use_go(monkeypatch, None)
    assert build.build(PROGRAM, said.append, tmp_path) == first


def test_a_failed_build_leaves_nothing_and_shows_what_the_compiler_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_go(monkeypatch, fake_go(tmp_path, 'echo half > "$GOBIN/tool"; echo "main.go:1:1: syntax error" >&2; exit 1'))
    with pytest.raises(ClusterError, match="syntax error"):
        build.build(PROGRAM, lambda text: None, tmp_path)
    assert build.find_built(PROGRAM, tmp_path) is None
    assert [path.name for path in (tmp_path / "bin").iterdir()] == ["tool.lock"]


def test_what_a_killed_build_left_is_removed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin" / ".tool.abc").mkdir(parents=True)
    use_go(monkeypatch, fake_go(tmp_path, 'echo tool > "$GOBIN/tool"'))
    built = build.build(PROGRAM, lambda text: None, tmp_path)
    assert sorted(path.name for path in (tmp_path / "bin").iterdir()) == sorted([built.parent.name, "tool.lock"])


def test_without_go_the_message_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_go(monkeypatch, None)
    with pytest.raises(ClusterError, match=r"go\.dev/dl"):
        build.build(PROGRAM, lambda text: None, tmp_path)
    use_go(monkeypatch, tmp_path / "go", (1, 19, 8))
    with pytest.raises(ClusterError, match=r"is Go 1\.19\.8, Kubernetes needs 1\.26"):
        build.build(PROGRAM, lambda text: None, tmp_path)


def test_a_full_disk_is_noticed_before_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_go(monkeypatch, fake_go(tmp_path, "exit 9"))
    with pytest.raises(ClusterError, match="GiB are free"):
        build.build(replace(PROGRAM, disk_bytes=1 << 60), lambda text: None, tmp_path)


def test_two_builds_at_once_build_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_go(monkeypatch, fake_go(tmp_path, 'echo run >> "$0.runs"; sleep 0.2; echo tool > "$GOBIN/tool"'))
    said: list[str] = []
    with ThreadPoolExecutor() as pool:
        built = list(pool.map(lambda _: build.build(PROGRAM, said.append, tmp_path), range(3)))
    assert len(set(built)) == 1
    assert (tmp_path / "go.runs").read_text() == "run\n"
    assert any("waiting for it" in text for text in said)
