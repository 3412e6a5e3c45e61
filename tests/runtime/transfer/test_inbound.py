"""The decode side of one attempt: every state ends, exactly once, for a reason."""

from __future__ import annotations

import pytest
from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.contracts.pod_protocol import PrefillPeer
from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.transfer.identity import chain_hash
from tandem_runtime.transfer.inbound import Inbound
from tandem_runtime.transfer.limits import HandoffLimits
from tandem_runtime.transfer.pull import Pull
from tandem_runtime.transfer.steps import Completed, GivenUp, InboundStep, Tell

LAYOUT = kv.Layout(2, 1, 1, 4, "bfloat16", 16)
LIMITS = HandoffLimits(window_bytes=32)
TOKENS = list(range(20))
PAGES = [(10 + number, 1) for number in range(6)]
"""One more than the tokens need: the engine keeps room for the next token."""
KEY = ("r", 0)


def attempt(have_pages: int = 0) -> Inbound:
    request = kv.Prefill(*KEY, TOKENS, Sampling(4), 0, 1000, have_pages)
    return Inbound(1, request, PrefillPeer("p", "host", 1, ""), PAGES, LAYOUT, LIMITS, 0.0)


def receiving(have_pages: int = 0) -> Inbound:
    inbound = attempt(have_pages)
    inbound.ask(0.0)
    inbound.hear(kv.Ready(*KEY, 5 - have_pages), "t", 0.0)
    return inbound


def frame(ordinal: int, layers: tuple[int, int] = (0, 2), generation: int = 1) -> kv.Frame:
    size = 8 * (layers[1] - layers[0])
    return kv.Frame(*KEY, "d", *layers, 10 + ordinal, generation, size, 0)


def take(inbound: Inbound, ordinal: int, intact: bool = True, now: float = 0.0, **more: tuple[int, int]) -> list[str]:
    message = frame(ordinal, **more)
    return words(inbound.take(message, inbound.place(message, "d"), intact, now))


def commit(inbound: Inbound, resent: int = 0, tokens: int = 20, hash_of: str = "t", first: int = 7) -> list[str]:
    digest = chain_hash([*TOKENS, 7], hash_of, b"")
    return words(inbound.hear(kv.Commit(*KEY, tokens, first, 0.0, digest, 5, resent), "t", 0.0))


@pytest.mark.parametrize("first", [5, 7 ^ 1 << 20, 1 << 40, -7])
def test_a_first_token_that_lost_a_bit_is_not_believed(first: int) -> None:
    assert "wrong_tokens" in commit(receiving(), first=first)


def words(steps: list[InboundStep]) -> list[str]:
    def word(step: InboundStep) -> str:
        match step:
            case Tell(kv.Grant(pages=pages, first=first)):
                return f"grant {first}+{len(pages)}"
            case Tell(kv.Nack(pages=pages)):
                return f"nack {pages}"
            case Tell(message):
                return type(message).__name__.lower()
            case Completed():
                return "completed"
            case GivenUp(reason):
                return reason
        return ""

    return [word(step) for step in steps]


def test_pages_are_granted_in_portions_and_never_more_than_the_window() -> None:
    inbound = attempt()
    assert words(inbound.ask(0.0)) == ["prefill"]
    assert words(inbound.hear(kv.Ready(*KEY, 5), "t", 0.0)) == ["grant 0+2"]
    assert inbound.place(frame(2), "d") is None, "not granted yet"
    assert take(inbound, 0) == ["grant 2+1"]
    assert take(inbound, 1) == ["grant 3+1"]
    assert take(inbound, 2) == ["grant 4+1"]
    assert [take(inbound, 3), take(inbound, 4)] == [[], []]
    assert commit(inbound) == ["ack", "completed"]
    assert commit(inbound) == [], "it is over"


def test_pages_that_are_held_already_are_neither_granted_nor_written() -> None:
    inbound = receiving(have_pages=3)
    assert inbound.place(frame(2), "d") is None
    assert [take(inbound, 3), take(inbound, 4)] == [[], []]
    assert commit(inbound) == ["ack", "completed"]


def test_only_what_is_granted_now_to_this_incarnation_and_generation_has_a_place() -> None:
    inbound = receiving()
    assert inbound.place(frame(0), "d") == 0
    assert inbound.place(frame(0), "the life before") is None
    assert inbound.place(frame(0, generation=2), "d") is None
    assert inbound.place(frame(5), "d") is None, "the page of the next token"
    inbound.give_up("dropped")
    assert inbound.place(frame(0), "d") is None


def test_one_damaged_layer_group_asks_for_its_page_once_and_a_second_time_ends_it() -> None:
    inbound = receiving()
    assert take(inbound, 0, intact=False, layers=(0, 1)) == ["nack [10]"]
    assert take(inbound, 0, intact=False, layers=(1, 2)) == ["grant 2+1"], "of the same page: it comes again whole"
    assert take(inbound, 0, layers=(0, 1)) == []
    assert take(inbound, 0, intact=False, layers=(1, 2)) == ["abort", "crc"]


def test_commit_with_pages_missing_names_them_once_and_waits_for_them() -> None:
    inbound = receiving()
    for ordinal in (0, 1, 2, 3):
        take(inbound, ordinal)
    stray = frame(4, generation=9)
    inbound.take(stray, inbound.place(stray, "d"), True, 0.0)
    assert commit(inbound) == ["nack [14]"]
    assert commit(inbound) == [], "said before the page was sent again"
    assert commit(inbound, resent=1) == ["abort", "incomplete"]


def test_a_prefill_pod_that_announces_fewer_pages_than_the_prompt_has_is_not_believed() -> None:
    inbound = attempt()
    inbound.ask(0.0)
    assert words(inbound.hear(kv.Ready(*KEY, 4), "t", 0.0)) == ["abort", "protocol"]


@pytest.mark.parametrize("wrong", [{"tokens": 19}, {"hash_of": "another key"}])
def test_kv_of_other_tokens_is_refused_though_all_pages_came(wrong: dict[str, int]) -> None:
    inbound = receiving()
    for ordinal in range(5):
        take(inbound, ordinal)
    assert commit(inbound, **wrong) == ["abort", "wrong_tokens"]  # type: ignore[arg-type]


def test_every_state_has_a_deadline_and_ends_once() -> None:
    connecting = attempt()
    assert words(connecting.expire(LIMITS.ready_seconds - 0.1)) == []
    assert words(connecting.expire(LIMITS.ready_seconds)) == ["peer_lost"]
    asked = attempt()
    asked.ask(1.0)
    assert words(asked.expire(1.0 + LIMITS.ready_seconds)) == ["abort", "no_answer"]
    granted = receiving()
    assert words(granted.expire(LIMITS.first_page_seconds)) == ["abort", "stalled"]
    assert words(granted.expire(1e9)) == []
    moving = receiving()
    take(moving, 0, now=19.0)
    assert words(moving.expire(28.0)) == []
    assert words(moving.expire(29.0)) == ["abort", "stalled"]


def test_messages_out_of_order_end_the_attempt_and_late_ones_are_ignored() -> None:
    early = attempt()
    early.ask(0.0)
    assert commit(early) == ["abort", "protocol"]
    assert words(early.hear(kv.Ready(*KEY, 5), "t", 0.0)) == []
    for last in (kv.Busy(*KEY, 200), kv.Abort(*KEY, "shutting down")):
        asked = attempt()
        asked.ask(0.0)
        assert words(asked.hear(last, "t", 0.0)) == ["busy" if isinstance(last, kv.Busy) else "aborted"]


def test_a_second_peer_is_asked_once_with_a_new_attempt_and_never_the_same_one() -> None:
    first, other = PrefillPeer("a", "host", 1, ""), PrefillPeer("b", "host", 2, "")
    pull = Pull(1, kv.Prefill(*KEY, TOKENS, Sampling(4), 0, 1000), first, PAGES, deadline=50.0)
    assert pull.start(LAYOUT, LIMITS, 0.0).request.attempt == 0
    assert not pull.retry([first], 1.0), "nobody else is there"
    assert pull.retry([first, other], 1.0)
    second = pull.start(LAYOUT, LIMITS, 10.0)
    assert (second.request.attempt, second.peer, second.request.remaining_ms) == (1, other, 40_000)
    assert not pull.retry([PrefillPeer("c", "host", 3, "")], 11.0), "the prompt is computed here"
    assert not Pull(1, pull.request, first, PAGES, deadline=5.0).retry([other], 6.0), "its time is up"
