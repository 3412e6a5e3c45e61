from __future__ import annotations

from pathlib import Path

import pytest

from e2e.cluster import cgroups
from e2e.cluster.errors import ClusterError

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / {root}/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / {root}/cpuset rw,relatime - cgroup cgroup rw,cpuset
40 31 0:37 / {root}/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / {root}/unified rw,relatime - cgroup2 cgroup2 rw
"""
UNIFIED = "30 23 0:26 / {root} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def write_mounts(folder: Path, text: str) -> Path:
    file = folder / "mountinfo"
    file.write_text(text.format(root=folder / "cgroup"))
    return file


def test_hierarchies_of_a_hybrid_machine_are_told_apart(tmp_path: Path) -> None:
    found = cgroups.parse_mounts(HYBRID.format(root="/sys/fs/cgroup"))
    assert [(one.mount.name, one.unified, sorted(one.controllers)) for one in found] == [
        ("cpu", False, ["cpu", "cpuacct"]),
        ("cpuset", False, ["cpuset"]),
        ("systemd", False, ["name=systemd"]),
        ("unified", True, []),
    ]


def test_a_group_is_made_in_every_hierarchy_and_removed_from_all(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    for name in ("cpu", "cpuset", "systemd", "unified"):
        (root / name).mkdir(parents=True)
    for file in ("cgroup.controllers", "cgroup.subtree_control"):
        (root / "unified" / file).write_text("")
        (root / "unified" / "tandem").mkdir(exist_ok=True)
        (root / "unified" / "tandem" / file).write_text("")
    mounts = write_mounts(tmp_path, HYBRID)
    cgroups.create("tandem/n0", mounts)
    assert sorted(path.parent.parent.name for path in root.glob("*/tandem/n0")) == [
        "cpu",
        "cpuset",
        "systemd",
        "unified",
    ]
    for path in (root / "unified" / "tandem").glob("cgroup.*"):
        path.unlink()
    (root / "cpu/tandem/n0/kubepods/pod1").mkdir(parents=True)
    cgroups.remove("tandem", mounts)
    assert list(root.glob("*/tandem")) == []
    cgroups.remove("tandem", mounts)


def test_a_new_cpuset_gets_the_cpus_of_its_parent(tmp_path: Path) -> None:
    parent, folder = tmp_path / "parent", tmp_path / "parent" / "child"
    folder.mkdir(parents=True)
    for name, value in (("cpuset.cpus", "0-1\n"), ("cpuset.mems", "0\n")):
        (parent / name).write_text(value)
        (folder / name).write_text("\n")
    cgroups._copy_cpuset(parent, folder)
    assert (folder / "cpuset.cpus").read_text() == "0-1\n"
    assert (folder / "cpuset.mems").read_text() == "0\n"


def test_controllers_are_delegated_on_v2(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    (root / "tandem").mkdir(parents=True)
    for folder in (root, root / "tandem"):
        (folder / "cgroup.controllers").write_text("memory\n")
        (folder / "cgroup.subtree_control").write_text("\n")
    cgroups.create("tandem/n0", write_mounts(tmp_path, UNIFIED))
    assert (root / "cgroup.subtree_control").read_text() == "+memory"
    assert (root / "tandem" / "cgroup.subtree_control").read_text() == "+memory"
    assert (root / "tandem" / "n0").is_dir()


def test_a_machine_without_control_groups_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no control groups"):
        cgroups.create("tandem/n0", write_mounts(tmp_path, "1 1 0:1 / / rw - ext4 /dev/a rw\n"))
