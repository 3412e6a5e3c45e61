"""Who comes first, who gives way, and who joins the batch when."""

from __future__ import annotations

from tandem_runtime.contracts.pod_protocol import Reason
from tandem_runtime.engine.batching import Batching
from tandem_runtime.engine.events import Broken, Finished, RemoteCommit
from tandem_runtime.engine.request import Phase

from tests.runtime.engine.test_scheduler import Bench


def test_the_earliest_objective_goes_first_and_priority_is_a_head_start() -> None:
    bench = Bench(pages=64, step_tokens=4)
    bench.add(prompt=4, max_tokens=1)
    late = bench.add(prompt=4, max_tokens=1, objective=20.0)
    early = bench.add(prompt=4, max_tokens=1, objective=1.0)
    urgent = bench.add(prompt=4, max_tokens=1, objective=20.0, priority=10)
    order = [work.request for _ in range(4) for work in bench.step()]
    assert order[:3] == [urgent, early, late]


def test_whoever_waits_long_enough_is_overtaken_by_nobody() -> None:
    bench = Bench(pages=64, step_tokens=4)
    humble = bench.add(prompt=4, max_tokens=1, priority=-10, deadline=1000.0)
    for _ in range(200):
        bench.now += 1.0
        bench.add(prompt=4, max_tokens=1, priority=10, objective=bench.now + 0.1)
        bench.step()
    assert humble.phase is Phase.ENDED
    assert bench.of(Finished, humble.handle)


def test_out_of_pages_the_lowest_priority_gives_way() -> None:
    bench = Bench(pages=8)
    humble = bench.add(prompt=4, max_tokens=24, priority=-5)
    proud = bench.add(prompt=4, max_tokens=24, priority=5)
    while not bench.scheduler.counters.preempted:
        bench.step()
    assert (humble.phase, proud.phase) == (Phase.QUEUED, Phase.DECODE)
    bench.run()


def test_headroom_is_kept_so_that_transferred_requests_find_their_next_page() -> None:
    bench = Bench(pages=8, headroom_tokens=8)
    remote = [bench.add(prompt=7, max_tokens=9, remote=True) for _ in range(3)]
    bench.step()
    assert [r.phase for r in remote] == [Phase.REMOTE_KV, Phase.REMOTE_KV, Phase.QUEUED]
    for request in remote[:2]:
        bench.scheduler.commit(RemoteCommit(request.handle, 5, 0.0, 1))
    for _ in range(8):
        bench.step()
    assert bench.scheduler.counters.preempted == 0
    bench.scheduler.compute_here(remote[2].handle)
    bench.run()


def test_a_request_that_cannot_be_done_in_its_time_is_refused_for_another_pod_to_try() -> None:
    bench = Bench(pages=64, step_tokens=4)
    for _ in range(8):
        bench.scheduler.estimate.learn(0, 0, 100, 0.0, 10.0)
    bench.add(prompt=40, deadline=600.0)
    bench.add(prompt=40, deadline=600.0)
    [broken] = bench.of(Broken, bench.add(prompt=4, deadline=2.0).handle)
    assert (broken.reason, broken.retryable) == (Reason.OVERLOADED, True)
    assert "s of work" in broken.message


def test_static_batching_waits_for_a_whole_batch_and_lets_nobody_in_until_it_is_done() -> None:
    bench = Bench(pages=64, batching=Batching.STATIC, batch_requests=2, batch_wait_seconds=5.0)
    first = bench.add(prompt=4, max_tokens=2)
    assert bench.step() == []
    assert bench.scheduler.next_deadline() == 5.0
    second = bench.add(prompt=4, max_tokens=4)
    third = bench.add(prompt=4, max_tokens=2)
    bench.step()
    assert [r.phase for r in (first, second, third)] == [Phase.DECODE, Phase.DECODE, Phase.QUEUED]
    bench.step()
    bench.step()
    assert third.phase is Phase.QUEUED
    bench.step()
    bench.now = 6.0
    assert [work.request for work in bench.step()] == [third], "an incomplete batch starts when it waited enough"


def test_dynamic_batching_takes_what_came_within_a_short_wait() -> None:
    bench = Bench(pages=64, batching=Batching.DYNAMIC, batch_requests=8, batch_wait_seconds=0.1)
    requests = [bench.add(prompt=4, max_tokens=2) for _ in range(3)]
    assert bench.step() == []
    bench.now = 0.2
    assert [work.request for work in bench.step()] == requests
