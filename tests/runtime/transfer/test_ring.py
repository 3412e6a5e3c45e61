"""Memory that two pods share: what goes in comes out, in order, and nothing else is ever opened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.transfer.ring import (
    HEADER_BYTES,
    PREFIX,
    Ring,
    RingError,
    RingOffer,
    choose_folder,
    open_ring,
)


def pair(folder: Path, size_bytes: int = 64) -> tuple[Ring, Ring]:
    """Reader and writer of the same memory, mapped twice."""
    offer = RingOffer(folder, size_bytes)
    writer = open_ring(folder, offer.message)
    offer.remove()
    assert writer.proof == offer.ring.proof
    return offer.ring, writer


@given(st.lists(st.tuples(st.integers(1, 40), st.booleans(), st.booleans()), max_size=40))
def test_payloads_come_out_as_they_went_in_whatever_is_skipped_and_wherever_it_wraps(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, bool, bool]]
) -> None:
    reader, writer = pair(tmp_path_factory.getbasetemp())
    inside: list[bytes] = []
    for number, (size, take, skip) in enumerate(steps):
        payload = bytes([number % 251]) * size
        if writer.has_room(size):
            writer.write(payload)
            inside.append(payload)
        else:
            assert sum(map(len, inside)) + size > 64
        if inside and take:
            first = inside.pop(0)
            if skip:
                reader.skip(len(first))
            else:
                assert reader.read(len(first)) == first
    for payload in inside:
        assert reader.read(len(payload)) == payload


def test_the_name_is_gone_once_both_have_it_and_its_memory_was_there_from_the_start(tmp_path: Path) -> None:
    reader, _ = pair(tmp_path, 1 << 16)
    assert os.listdir(tmp_path) == []
    assert reader.size_bytes == 1 << 16


def test_only_a_file_that_is_a_ring_of_this_user_is_opened(tmp_path: Path) -> None:
    name = f"{PREFIX}{'0' * 32}"
    (tmp_path / "secret").write_bytes(bytes(HEADER_BYTES + 64))
    (tmp_path / name).symlink_to(tmp_path / "secret")
    for offer in (
        kv.Ring("../etc/passwd", 64),
        kv.Ring("secret", 64),
        kv.Ring(name, 64),
        kv.Ring(name, 1 << 40),
        kv.Ring(name, -1),
        kv.Ring(f"{PREFIX}{'1' * 32}", 64),
    ):
        with pytest.raises(RingError):
            open_ring(tmp_path, offer)
    (tmp_path / name).unlink()
    (tmp_path / name).write_bytes(bytes(10))
    with pytest.raises(RingError, match="10 bytes"):
        open_ring(tmp_path, kv.Ring(name, 64))


def test_a_folder_without_room_is_no_reason_to_fail(tmp_path: Path) -> None:
    with pytest.raises(RingError):
        RingOffer(tmp_path / "missing")
    with pytest.raises(RingError, match="bytes are needed"):
        RingOffer(tmp_path, 1 << 60)
    assert os.listdir(tmp_path) == []
    assert choose_folder("off") is None
    assert choose_folder(str(tmp_path)) == tmp_path
    assert choose_folder(str(tmp_path / "missing")) is None
