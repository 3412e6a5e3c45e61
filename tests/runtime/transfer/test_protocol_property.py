"""Any interleaving of messages, deaths, cuts, damage and timeouts: pages stay where they are while they are written,
requests end exactly once, credits stay within the window, and at the end nothing is held.
"""

from __future__ import annotations

import random

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tandem_runtime.contracts import kv_protocol as kv

from tests.runtime.transfer.simulated import (
    LIMITS,
    LOST_SECONDS,
    Clock,
    DecodePod,
    PrefillPod,
    Wire,
    damage,
)

POD = st.integers(0, 1)
FAULT = st.sampled_from(["payload", "page", "generation", "incarnation", "lost"])
RARELY = st.sampled_from([False] * 5 + [True])
"""Of what ends everything: were it frequent, nothing would ever be under way when it comes."""
FEW_ROUNDS = 300
"""Seconds of an undisturbed network: after that everything must be over."""


class Handoff(RuleBasedStateMachine):
    """Two prefill pods and one decode pod."""

    @initialize(window=st.sampled_from([0, 40]))
    def start(self, window: int = 0) -> None:
        self.window = window
        self.clock = Clock()
        self.wires: dict[int, Wire] = {}
        self.lives = self.handles = 0
        self.late: list[tuple[kv.Message, bytes]] = []
        self.answers: dict[tuple[int, ...], list[int]] = {}
        self.submitted: dict[int, list[int]] = {}
        self.prefill = [PrefillPod(self.clock, number, window) for number in range(2)]
        self._start_decode()
        for number in range(4):
            self.submit(number + 1, 60 + 20 * number, number % 2, 5)

    def _start_decode(self) -> None:
        self.lives += 1
        self.decode = DecodePod(self.clock, f"d{self.lives}", self.wires, self.window)
        for number in range(2):
            self._connect(number)

    def _connect(self, number: int) -> None:
        self.wires[number] = Wire(number, self.decode.incarnation)

    def _drop(self, number: int) -> None:
        wire = self.wires[number]
        if wire.up:
            wire.up = False
            self.prefill[number].lose(wire)
            self.decode.lose(wire)

    @rule(start=st.integers(1, 30), length=st.integers(1, 130), peer=POD | st.none(), tokens=st.integers(1, 40))
    def submit(self, start: int, length: int, peer: int | None, tokens: int) -> None:
        self.handles += 1
        prompt = [start + number % 90 for number in range(length)]
        self.submitted[self.handles] = prompt
        self.decode.submit(self.handles, prompt, peer, tokens)

    @rule(index=st.integers(0, 99), really=RARELY)
    def client_leaves(self, index: int, really: bool) -> None:
        open_now = sorted(self.decode.open)
        if open_now and really:
            self.decode.cancel(open_now[index % len(open_now)])

    @rule(number=POD, count=st.integers(1, 4))
    def deliver_to_prefill(self, number: int, count: int) -> None:
        wire = self.wires[number]
        for _ in range(min(count, len(wire.to_prefill)) if wire.up and wire.cut_since is None else 0):
            self.prefill[number].hear(wire, wire.to_prefill.popleft())

    @rule(number=POD, count=st.integers(1, 6))
    def deliver_to_decode(self, number: int, count: int) -> None:
        wire = self.wires[number]
        for _ in range(min(count, len(wire.to_decode)) if wire.up and wire.cut_since is None else 0):
            message, payload = wire.to_decode.popleft()
            self.late = [*self.late[-7:], (message, payload)]
            self.decode.hear(wire, message, payload)

    @rule(number=POD)
    def a_message_comes_twice(self, number: int) -> None:
        wire = self.wires[number]
        if wire.to_decode:
            wire.to_decode.appendleft(wire.to_decode[0])

    @rule(number=POD, fault=FAULT)
    def the_next_frame_is_damaged_or_goes_astray(self, number: int, fault: str) -> None:
        queue = self.wires[number].to_decode
        frames = [index for index, (message, _) in enumerate(queue) if isinstance(message, kv.Frame)]
        if not frames:
            return
        index = frames[0]
        frame, payload = queue[index]
        assert isinstance(frame, kv.Frame)
        if fault == "lost":
            del queue[index]
        elif fault == "payload":
            queue[index] = (frame, damage(payload))
        else:
            wrong = {"page": frame.page + 1, "generation": frame.generation + 1, "incarnation": "another"}
            queue[index] = (msgspec.structs.replace(frame, **{fault: wrong[fault]}), payload)

    @rule(number=POD)
    def repeat_a_message_of_the_decode_pod(self, number: int) -> None:
        wire = self.wires[number]
        if wire.to_prefill:
            wire.to_prefill.append(wire.to_prefill[0])

    @precondition(lambda self: self.late)
    @rule(index=st.integers(0, 7), number=POD)
    def an_old_message_comes_again(self, index: int, number: int) -> None:
        self.decode.hear(self.wires[number], *self.late[index % len(self.late)])

    @rule(rounds=st.integers(1, 4), fault=FAULT | st.none())
    def all_goes_well_until_frames_are_on_their_way(self, rounds: int, fault: str | None) -> None:
        for _ in range(rounds):
            self.decode_works(1)
            for number in self.wires:
                self.deliver_to_decode(number, 99)
                self.deliver_to_prefill(number, 99)
                self.prefill_works(number, 2)
        for number in self.wires if fault is not None else ():
            self.the_next_frame_is_damaged_or_goes_astray(number, str(fault))

    @rule(number=POD, turns=st.integers(1, 3))
    def prefill_works(self, number: int, turns: int) -> None:
        for _ in range(turns):
            self.prefill[number].turn()
            self.prefill[number].pump()

    @rule(turns=st.integers(1, 3))
    def decode_works(self, turns: int) -> None:
        for _ in range(turns):
            self.decode.turn()

    @rule(seconds=st.sampled_from([0.1, 0.2, 0.3, 0.3, 2.5, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds
        for number, wire in self.wires.items():
            if wire.cut_since is not None and self.clock.now - wire.cut_since >= LOST_SECONDS:
                self._drop(number)
            self.prefill[number].expire(wire, alive=wire.up and wire.cut_since is None)
        self.decode.expire()

    @rule(number=POD, really=RARELY)
    def cut_the_network(self, number: int, really: bool) -> None:
        if not really:
            return
        self.wires[number].cut_since = self.clock.now

    @rule(number=POD, really=RARELY)
    def connection_breaks(self, number: int, really: bool) -> None:
        if not really:
            return
        self._drop(number)

    @rule(number=POD)
    def connect_again(self, number: int) -> None:
        if not self.wires[number].up:
            self._connect(number)

    @rule(number=POD, really=RARELY)
    def prefill_pod_dies(self, number: int, really: bool) -> None:
        if not really:
            return
        dead = self.prefill[number]
        self._drop(number)
        dead.engine.scheduler.requests.clear()
        self.prefill[number] = PrefillPod(self.clock, number, self.window)

    @rule(really=RARELY)
    def decode_pod_dies(self, really: bool) -> None:
        if not really:
            return
        self._check_ends(self.decode)
        dead, wires = self.decode, list(self.wires.values())
        for wire in wires:
            wire.up = False
            self.prefill[wire.number].lose(wire)
        dead.open.clear()
        self._start_decode()

    @invariant()
    def credits_stay_within_the_window_and_name_pages_that_are_held(self) -> None:
        for attempt in self.decode.inbound.values():
            assert attempt.outstanding_pages <= LIMITS.window_pages(self.decode.layout.page_bytes)
            request = self.decode.engine.scheduler.requests.get(attempt.handle)
            if attempt.handle in self.decode.open and request is not None and not attempt.ended:
                blocks = self.decode.engine.scheduler.blocks
                held = [(page, blocks.generation(page)) for page in request.pages]
                assert held[: len(attempt._pages)] == attempt._pages, "granted pages are not the request's any more"

    @invariant()
    def nobody_ends_twice_and_same_prompts_have_the_same_answer(self) -> None:
        self._check_ends(self.decode)

    def _check_ends(self, decode: DecodePod) -> None:
        assert all(count == 1 for count in decode.ends.values())
        for handle, ids in decode.answers.items():
            known = self.answers.setdefault(tuple(self.submitted[handle]), [])
            shared = min(len(known), len(ids))
            assert ids[:shared] == known[:shared], "a wrong token"
            known.extend(ids[shared:])

    def teardown(self) -> None:
        for number in self.wires:
            self.wires[number].cut_since = None
            self.connect_again(number)
        for _ in range(FEW_ROUNDS):
            if not self.decode.open and not any(pod.jobs or pod.engine.scheduler.requests for pod in self.prefill):
                break
            for number in self.wires:
                self.prefill_works(number, 2)
                self.deliver_to_decode(number, 99)
            self.decode_works(3)
            for number in self.wires:
                self.deliver_to_prefill(number, 99)
            self.time_passes(0.3)
        self.decode_works(2)
        self._check_ends(self.decode)
        assert not self.decode.open, "a request hangs"
        assert not self.decode.fetches
        assert not self.decode.inbound
        for engine in (self.decode.engine, *(pod.engine for pod in self.prefill)):
            assert not engine.scheduler.requests
            assert engine.scheduler.blocks.used == 0, "pages leak"
        assert not any(pod.jobs for pod in self.prefill)


TestHandoff = Handoff.TestCase
TestHandoff.settings = settings(stateful_step_count=60, suppress_health_check=list(HealthCheck))


def test_a_quiet_network_hands_everything_over() -> None:
    machine = Handoff()
    machine.start()
    chance = random.Random(1)
    for _ in range(12):
        machine.submit(chance.randint(1, 3), chance.randint(1, 130), chance.randint(0, 1), 5)
    machine.teardown()
    assert machine.decode.completed == 16
    assert machine.decode.retries == machine.decode.stale == 0
