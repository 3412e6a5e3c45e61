from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e.cluster.errors import ClusterError
from e2e.cluster.processes import (
    Identity,
    clean_environment,
    find_child,
    find_in_network,
    identify,
    is_alive,
    kill,
    parse_stat,
    run,
    spawn,
    started_at,
    tail,
    wait_gone,
)


@given(st.text(st.characters(codec="ascii", exclude_characters="\n"), max_size=15), st.integers(0, 2**40))
def test_the_start_time_is_found_whatever_the_program_is_called(name: str, ticks: int) -> None:
    assert parse_stat(f"12 ({name}) S {' '.join('0' * 18)} {ticks} 0 0") == ("S", ticks)


def test_a_spawned_process_is_known_and_can_be_killed(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "sleep.log"
    process = spawn(["bash", "-c", "echo started; exec sleep 600"], log)
    assert is_alive(process)
    assert os.getsid(process.pid) == process.pid
    assert abs(started_at(process) - time.time()) < 60
    assert process in find_in_network(Path("/proc/self/ns/net"))
    kill([process])
    wait_gone([process])
    assert not is_alive(process)
    assert tail(log) == "started"


def test_another_process_under_an_old_pid_is_neither_alive_nor_killed() -> None:
    own = identify(os.getpid())
    assert own is not None
    stranger = Identity(own.pid, own.start_ticks - 1)
    assert not is_alive(stranger)
    kill([stranger])
    wait_gone([stranger])


def test_the_child_of_a_wrapper_is_found(tmp_path: Path) -> None:
    wrapper = spawn(["bash", "-c", "sleep 600 & wait"], tmp_path / "log")
    child = find_child(wrapper)
    assert child.pid != wrapper.pid
    kill([child, wrapper])
    wait_gone([child, wrapper])
    with pytest.raises(ClusterError, match="started no child"):
        find_child(wrapper, timeout_seconds=0.1)


def test_a_process_that_stays_is_named_in_the_error() -> None:
    own = identify(os.getpid())
    assert own is not None
    with pytest.raises(ClusterError, match=f"processes {own.pid} did not end"):
        wait_gone([own], timeout_seconds=0.05)


def test_a_failing_command_shows_its_own_words() -> None:
    with pytest.raises(ClusterError, match=r"exit 3\): so it goes"):
        run(["bash", "-c", "echo so it goes >&2; exit 3"])
    assert run(["bash", "-c", "cat; exit 3"], stdin="hello", check=False) == "hello"


def test_a_missing_program_points_to_the_doctor(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="doctor"):
        run(["no-such-program"])
    with pytest.raises(ClusterError, match="doctor"):
        spawn(["no-such-program"], tmp_path / "log")


def test_daemons_see_no_proxy_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    monkeypatch.setenv("SECRET", "x")
    assert set(clean_environment()) == {"PATH", "HOME", "LANG"}
