"""Room on nodes: fragments do not add up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tandem_operator.placement.room import after, clamp, short_of

histograms = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 5)), max_size=6, unique_by=lambda pair: pair[0])
wishes = st.lists(st.tuples(st.sampled_from([1, 2, 4, 8]), st.integers(0, 6)), max_size=3)


def test_eleven_devices_in_pieces_take_no_replica_of_four() -> None:
    assert short_of(((3, 3), (2, 1)), ((4, 1),)) == 1
    assert short_of(((3, 3), (2, 1)), ((2, 4),)) == 0


def test_two_sizes_share_the_nodes_of_one_class() -> None:
    assert short_of(((8, 1),), ((4, 1), (4, 1))) == 0
    assert short_of(((8, 1),), ((8, 1), (1, 1))) == 1
    assert after(((8, 2),), ((4, 1), (8, 1))) == ((4, 1),)


@given(histograms, wishes)
def test_what_is_left_and_what_was_placed_add_up(free: list[tuple[int, int]], wanted: list[tuple[int, int]]) -> None:
    have = sum(devices * count for devices, count in free)
    left = sum(devices * count for devices, count in after(tuple(free), wanted))
    missing = short_of(tuple(free), wanted)
    asked = sum(count for _, count in wanted)
    assert 0 <= missing <= asked
    assert left <= have
    if not missing:
        assert have - left == sum(devices * count for devices, count in wanted)


@given(histograms, wishes)
def test_nodes_beyond_the_number_of_replicas_make_no_difference(
    free: list[tuple[int, int]], wanted: list[tuple[int, int]]
) -> None:
    asked = sum(count for _, count in wanted)
    assert short_of(clamp(tuple(free), asked), wanted) == short_of(tuple(free), wanted)
