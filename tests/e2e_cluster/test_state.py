from __future__ import annotations

import json
import os
from pathlib import Path

from e2e.cluster.processes import Identity, identify
from e2e.cluster.state import FILE, State


def test_what_is_recorded_is_there_after_a_crash(tmp_path: Path) -> None:
    state = State.create(tmp_path / "run")
    own = identify(os.getpid())
    assert own is not None
    state.nodes = ["n0"]
    state.record("n0/kubelet", own)
    state.record("n1/kubelet", Identity(1, 1))
    loaded = State.load(tmp_path / "run")
    assert loaded is not None
    assert not loaded.complete
    assert loaded.nodes == ["n0"]
    assert loaded.alive("n0/kubelet") == own
    assert loaded.alive("n1/kubelet") is None
    assert loaded.alive("etcd") is None
    assert list(loaded.of_node("n0")) == ["n0/kubelet"]


def test_without_a_run_folder_there_is_no_cluster(tmp_path: Path) -> None:
    assert State.load(tmp_path / "run") is None


def test_a_damaged_state_is_an_incomplete_cluster(tmp_path: Path) -> None:
    for content in ("", "{", "[]", '{"boot": 1}'):
        (tmp_path / FILE).write_text(content)
        loaded = State.load(tmp_path)
        assert loaded is not None
        assert not loaded.complete


def test_after_a_restart_of_the_machine_no_process_is_ours(tmp_path: Path) -> None:
    state = State.create(tmp_path / "run")
    state.complete = True
    state.record("etcd", Identity(1, 1))
    file = tmp_path / "run" / FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), "boot": "another"}))
    loaded = State.load(tmp_path / "run")
    assert loaded is not None
    assert not loaded.complete
    assert loaded.processes == {}
