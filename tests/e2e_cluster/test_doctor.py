from __future__ import annotations

import os
from pathlib import Path

import pytest

from e2e.cluster import doctor
from e2e.cluster.errors import ClusterError

MISSING = doctor.Package("some-package", "no-such-program", "nothing")
MOUNTS = "overlay / overlay rw 0 0\n/dev/a /home ext4 rw 0 0\ntmpfs /home/x/tmp tmpfs rw 0 0\n"


def test_a_package_is_known_by_its_program_or_file() -> None:
    there = [doctor.Package("bash", "bash", ""), doctor.Package("passwd", "/etc/passwd", "")]
    assert doctor.find_missing([*there, MISSING]) == [MISSING]


def test_nothing_is_installed_without_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(doctor, "find_missing", lambda: [MISSING])
    with pytest.raises(ClusterError, match=r"apt-get install .* some-package"):
        doctor.install_missing(False, print)


def test_a_machine_that_is_no_debian_is_told_the_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_missing", lambda: [MISSING])
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ClusterError, match="no Debian"):
        doctor.install_missing(True, print)


def test_without_root_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ClusterError, match="sudo"):
        doctor.need_root()


def test_the_file_system_is_that_of_the_longest_mount() -> None:
    assert doctor.file_system(Path("/home/x/cache"), MOUNTS) == "ext4"
    assert doctor.file_system(Path("/home/x/tmp/a"), MOUNTS) == "tmpfs"
    assert doctor.file_system(Path("/homes"), MOUNTS) == "overlay"


def test_an_overlay_disk_is_refused_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "file_system", lambda path, mounts: "overlay")
    with pytest.raises(ClusterError, match="XDG_CACHE_HOME"):
        doctor.need_disk(tmp_path)


def test_a_program_that_hangs_or_is_missing_does_not_answer() -> None:
    assert doctor.answers("true")
    assert not doctor.answers("false")
    assert not doctor.answers("no-such-program")


def test_every_missing_thing_has_a_remedy() -> None:
    assert all(finding.fine or finding.remedy for finding in doctor.examine())
