"""The choice of a pair of pods from snapshots."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from tandem_runtime.policy.choice import HEADROOM_TOKENS, Hold, Pair, PodSnapshot, choose_pair


def pod(name: str, role: str = "decode", **facts: object) -> PodSnapshot:
    return replace(PodSnapshot(name, role, "rev1", f"{name}-1", ready=True, kv_total_tokens=1000), **facts)  # type: ignore[arg-type]


def test_the_least_loaded_pods_are_taken_and_the_name_decides_between_equals() -> None:
    pods = [
        pod("d1", running=3),
        pod("d0", running=1, kv_used_tokens=500),
        pod("d2", running=1),
        pod("p1", "prefill", waiting_tokens=10),
        pod("p0", "prefill", waiting_tokens=10),
        pod("p2", "prefill", waiting_tokens=11),
    ]
    pair = choose_pair(pods, 100)
    assert isinstance(pair, Pair)
    assert pair.prefill is not None
    assert (pair.decode.pod, pair.prefill.pod) == ("d2", "p0")


def test_prefill_is_never_taken_from_another_revision_and_then_decode_does_it_itself() -> None:
    pair = choose_pair([pod("d0"), pod("p0", "prefill", revision="rev2")], 10)
    assert isinstance(pair, Pair)
    assert pair.prefill is None


def test_a_pod_that_does_both_needs_no_peer() -> None:
    pair = choose_pair([pod("b0", "both"), pod("p0", "prefill")], 10)
    assert isinstance(pair, Pair)
    assert pair.prefill is None


def test_each_reason_to_hold_is_told_apart() -> None:
    assert choose_pair([pod("p0", "prefill"), pod("d0", ready=False), pod("d1", draining=True)], 10) == Hold("no_pod")
    assert choose_pair([pod("d0", kv_used_tokens=960)], 10) == Hold("no_room")
    assert choose_pair([pod("d0", slots=0)], 10) == Hold("no_room")
    assert choose_pair([pod("d0")], 10, frozenset({"d0-1"})) == Hold("avoided")
    assert choose_pair([pod("d0")], 1000) == Hold("too_large", 1000)
    assert isinstance(choose_pair([pod("d0"), pod("d1", kv_total_tokens=0)], 1000), Pair)


SNAPSHOTS = st.builds(
    PodSnapshot,
    pod=st.integers(0, 1 << 30).map(str),
    role=st.sampled_from(["prefill", "decode", "both"]),
    revision=st.sampled_from(["rev1", "rev2"]),
    incarnation=st.sampled_from("abcdef"),
    ready=st.booleans(),
    draining=st.booleans(),
    running=st.integers(0, 5),
    waiting_tokens=st.integers(0, 500),
    kv_used_tokens=st.integers(0, 500),
    kv_total_tokens=st.integers(0, 500),
    slots=st.none() | st.integers(0, 3),
)


@given(
    st.lists(SNAPSHOTS, max_size=8, unique_by=lambda each: each.pod),
    st.integers(1, 600),
    st.frozensets(st.sampled_from("abcdef")),
)
def test_a_choice_is_always_allowed_and_only_made_where_none_better_stands(
    pods: list[PodSnapshot], tokens: int, avoid: frozenset[str]
) -> None:
    found = choose_pair(pods, tokens, avoid)
    allowed = [
        each
        for each in pods
        if each.role != "prefill"
        and each.serves()
        and each.incarnation not in avoid
        and each.has_room(tokens + HEADROOM_TOKENS)
    ]
    assert isinstance(found, Pair) == bool(allowed)
    if isinstance(found, Pair):
        assert found.decode in allowed
        assert found.decode.running == min(each.running for each in allowed)
        assert found == choose_pair(pods[::-1], tokens, avoid)
        if found.prefill is not None:
            assert found.prefill.role == "prefill"
            assert found.prefill.serves()
            assert found.prefill.revision == found.decode.revision
            assert found.prefill.incarnation not in avoid
