from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e.cluster.errors import ClusterError
from e2e.cluster.layout import (
    DEFAULT_SUBNETS,
    DEVICE_NAME_BYTES,
    MAX_NODES,
    SUBNETS_FILE,
    Addresses,
    Layout,
    cache_folder,
    node_index,
    node_names,
)

ADDRESSES = Addresses.parse(DEFAULT_SUBNETS)


def test_every_node_has_an_address_and_pods_of_its_own() -> None:
    machines = {ADDRESSES.host, ADDRESSES.control_plane, *[ADDRESSES.node(index) for index in range(MAX_NODES)]}
    assert len(machines) == MAX_NODES + 2
    assert all(machine in ADDRESSES.machines for machine in machines)
    ranges = [ADDRESSES.node_pods(index) for index in range(MAX_NODES)]
    assert all(one.subnet_of(ADDRESSES.pods) for one in ranges)
    assert not any(a.overlaps(b) for a in ranges for b in ranges if a is not b)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("10.20.0.0/24", "must look like"),
        ("10.20.0.0/24,10.245.0.0/16,hello", "must look like"),
        ("10.20.0.0/28,10.245.0.0/16,10.97.0.0/16", "too small"),
        ("10.20.0.0/24,10.20.0.0/16,10.97.0.0/16", "overlap"),
    ],
)
def test_unusable_subnets_are_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ClusterError, match=reason):
        Addresses.parse(text)


def test_later_commands_find_the_addresses_of_the_cluster_that_exists(tmp_path: Path) -> None:
    assert Layout.find("tandem", DEFAULT_SUBNETS, tmp_path).addresses == ADDRESSES
    other = "10.30.0.0/24,10.31.0.0/16,10.32.0.0/16"
    (tmp_path / "tandem").mkdir()
    (tmp_path / "tandem" / SUBNETS_FILE).write_text(Addresses.parse(other).text)
    assert Layout.find("tandem", DEFAULT_SUBNETS, tmp_path).addresses.text == other


def test_names_of_devices_fit_the_kernel() -> None:
    assert len(Layout("abcdefghi", cache=Path("/c")).host_device) <= DEVICE_NAME_BYTES
    for name in ("", "Tandem", "1a", "abcdefghij", "a-b", "../x"):
        with pytest.raises(ClusterError, match="cluster name"):
            Layout(name, cache=Path("/c"))


@given(st.integers(1, MAX_NODES))
def test_node_names_and_indexes_agree(count: int) -> None:
    assert [node_index(name) for name in node_names(count)] == list(range(count))


@pytest.mark.parametrize("count", [0, -1, MAX_NODES + 1])
def test_impossible_node_counts_are_refused(count: int) -> None:
    with pytest.raises(ClusterError, match=f"--nodes {count}"):
        node_names(count)


def test_a_name_that_is_no_node_is_refused() -> None:
    with pytest.raises(ClusterError, match="'n12' is no node"):
        node_index("n12")


def test_the_cache_follows_the_xdg_variable() -> None:
    assert cache_folder({"XDG_CACHE_HOME": "/somewhere"}) == Path("/somewhere/tandem")
    assert cache_folder({}) == Path.home() / ".cache" / "tandem"
