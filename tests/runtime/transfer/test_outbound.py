"""The prefill side of one attempt: pages are held no longer than somebody goes on with them."""

from __future__ import annotations

from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.engine.events import PrefillDone
from tandem_runtime.transfer.limits import HandoffLimits
from tandem_runtime.transfer.outbound import Outbound
from tandem_runtime.transfer.steps import OutboundStep, Released, Reread, Tell

LAYOUT = kv.Layout(1, 1, 1, 4, "bfloat16", 16)
LIMITS = HandoffLimits()
DONE = PrefillDone(1, 7, -0.5, 12)


def attempt(have_pages: int = 0) -> Outbound:
    return Outbound(kv.Prefill("r", 0, list(range(12)), Sampling(4), 0, 1000, have_pages), LAYOUT, LIMITS, 0.0)


def send_all(outbound: Outbound, now: float = 0.0) -> list[int]:
    sent = []
    while (page := outbound.next_page()) is not None:
        outbound.sent(page, now)
        sent.append(page.place[0])
    return sent


def compute(outbound: Outbound, first: int, count: int, now: float = 0.0) -> list[list[tuple[int, int, bytes]]]:
    return outbound.add_pages(first, [[(0, 1, bytes(16))]] * count, now)


def grant(outbound: Outbound, count: int, first: int, now: float = 0.0) -> list[str]:
    return words(outbound.grant([(40 + first + number, 1) for number in range(count)], first, now))


def words(steps: list[OutboundStep]) -> list[str]:
    def word(step: OutboundStep) -> str:
        match step:
            case Tell(message):
                return type(message).__name__.lower()
            case Reread(ordinals):
                return f"reread {ordinals}"
            case Released(completed):
                return "completed" if completed else "released"

    return [word(step) for step in steps]


def committed() -> Outbound:
    outbound = attempt()
    grant(outbound, 3, 0)
    compute(outbound, 0, 3)
    outbound.finish(DONE, 0.0)
    assert send_all(outbound) == [40, 41, 42]
    assert words(outbound.commit("t", 0.0)) == ["commit"]
    return outbound


def test_nothing_is_sent_before_it_is_granted_and_commit_comes_after_the_last_page() -> None:
    outbound = attempt()
    compute(outbound, 0, 2)
    assert outbound.next_page() is None
    grant(outbound, 1, 0)
    assert send_all(outbound) == [40]
    outbound.finish(DONE, 0.0)
    compute(outbound, 2, 1)
    grant(outbound, 2, 1)
    assert words(outbound.commit("t", 0.0)) == [], "two pages are still here"
    assert send_all(outbound) == [41, 42]
    assert words(outbound.commit("t", 0.0)) == ["commit"]
    assert words(outbound.acknowledge()) == ["completed"]
    assert words(outbound.give_up("late")) == [], "it is over"


def test_pages_that_the_other_side_holds_are_not_sent() -> None:
    outbound = attempt(have_pages=2)
    assert outbound.pages == 1
    assert len(compute(outbound, 0, 3)) == 2, "let go at once"
    grant(outbound, 1, 0)
    assert send_all(outbound) == [40]


def test_a_page_is_sent_once_more_and_a_second_complaint_ends_the_attempt() -> None:
    outbound = committed()
    assert words(outbound.nack([41], 1.0)) == ["reread [1]"]
    assert words(outbound.commit("t", 1.0)) == [], "not before the page is out again"
    compute(outbound, 1, 1, 1.0)
    assert send_all(outbound, 1.0) == [41]
    (again,) = outbound.commit("t", 1.0)
    assert isinstance(again, Tell)
    assert isinstance(again.message, kv.Commit)
    assert again.message.resent_pages == 1
    assert words(outbound.nack([41], 2.0)) == ["abort", "released"]


def test_a_complaint_about_pages_that_were_never_granted_ends_the_attempt_and_one_that_is_early_does_not() -> None:
    assert words(committed().nack([99], 1.0)) == ["abort", "released"]
    fresh = attempt()
    grant(fresh, 1, 0)
    assert words(fresh.nack([40], 1.0)) == [], "it is still to come"


def test_a_grant_that_comes_twice_is_harmless_and_a_gap_or_too_much_ends_the_attempt() -> None:
    outbound = attempt()
    grant(outbound, 2, 0)
    assert grant(outbound, 2, 0) == []
    compute(outbound, 0, 3)
    assert send_all(outbound) == [40, 41]
    assert grant(outbound, 1, 3) == ["abort", "released"]
    assert grant(attempt(), 4, 0) == ["abort", "released"]


def test_a_silent_peer_ends_the_lease_and_pings_renew_it() -> None:
    outbound = attempt()
    outbound.renew(5.0)
    assert words(outbound.expire(14.9)) == []
    assert words(outbound.expire(15.0)) == ["abort", "released"]


def test_a_peer_that_lives_but_grants_nothing_or_takes_nothing_does_not_hold_pages_for_ever() -> None:
    for granted in (0, 3):
        stuck = attempt()
        if granted:
            grant(stuck, granted, 0)
        compute(stuck, 0, 1, now=2.0)
        for second in range(3, 12):
            stuck.renew(float(second))
            assert words(stuck.expire(float(second))) == []
        stuck.renew(12.0)
        assert words(stuck.expire(12.0)) == ["abort", "released"]


def test_commit_without_an_answer_frees_the_pages_though_the_peer_pings() -> None:
    outbound = committed()
    outbound.renew(9.0)
    assert words(outbound.expire(9.9)) == []
    assert words(outbound.expire(10.0)) == ["abort", "released"]


def test_a_long_computation_is_no_reason_to_give_up_while_the_peer_lives() -> None:
    outbound = attempt()
    grant(outbound, 3, 0)
    for second in range(0, 300, 5):
        outbound.renew(float(second))
        assert words(outbound.expire(float(second))) == []
