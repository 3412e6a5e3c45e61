"""Routers' shares never exceed what there is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tandem_runtime.server.credits import Room, share_out

COUNTS = st.integers(-5, 10_000)


@given(COUNTS, COUNTS, COUNTS, st.integers(1, 9))
def test_the_shares_of_all_routers_are_what_there_is(
    slots: int, kv_tokens: int, queue_tokens: int, routers: int
) -> None:
    shares = share_out(Room(slots, kv_tokens, queue_tokens), routers, "i")
    assert len(shares) == routers
    assert sum(share.slots for share in shares) == max(0, slots)
    assert sum(share.kv_tokens for share in shares) == max(0, kv_tokens)
    assert sum(share.queue_tokens for share in shares) == max(0, queue_tokens)
    assert max(share.slots for share in shares) - min(share.slots for share in shares) <= 1
