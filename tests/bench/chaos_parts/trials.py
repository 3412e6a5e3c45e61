"""One trial: several streams in flight with known right answers, one fault at a random moment, everything checked."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final

from tests.bench.chaos_parts.answers import Ask, Reading, Right, get, read_answer
from tests.bench.chaos_parts.fleet import MODEL, TOKEN, Fleet, Member
from tests.bench.chaos_parts.tally import Tally
from tests.bench.chaos_parts.wires import FrameFault

STREAMS: Final = 5
STREAM_LIMIT_SECONDS: Final = 45.0
"""An answer takes two seconds; detection and a restart are well within that."""
SLOWNESS: Final = 10.0
"""On a machine that does not get to it, an answer may take that many times what the slowest undisturbed one took."""
LONG_FREEZE_SHARE: Final = 0.8
"""The others end before anybody may call the pod lost: nothing should come of them."""
FREEZE_SECONDS: Final = (3.2, 4.5)
BLINK_SECONDS: Final = (0.2, 1.5)
FREED_SECONDS: Final = 2.0
"""After the death of a router its work and its credits are free again."""
AFFECTED_SECONDS: Final = 0.25
"""A shorter gap is the pace of the machine, not of a fault."""
SLOW_SECONDS: Final = 3.0
"""After the detection: worth an explanation."""
GRACE_SECONDS: Final = 1.0
"""At most, of a pod that changes its role."""
END_SECONDS: Final = 60.0
"""From SIGTERM to the end: a second of grace, and whatever the machine takes."""

ROUTER_NOTICES: Final = ("connection closed by the pod", "connection lost", "silent for", "cannot connect")
DECODE_NOTICES: Final = ("prefill pod at",)
Bank = dict[Ask, Right]


@dataclass(slots=True)
class Trial:
    """What a case works on."""

    fleet: Fleet
    bank: Bank
    random: Random
    tally: Tally
    horizon_seconds: tuple[float, float]
    """Within that time after the requests they are still in prefill, and at all under way: when faults come."""

    def ask(self, router: Member, count: int = STREAMS) -> list[asyncio.Task[Reading]]:
        """That many of the bank, at once."""
        return [asyncio.create_task(self._read(router, ask)) for ask in self.random.sample(list(self.bank), count)]

    async def _read(self, router: Member, ask: Ask) -> Reading:
        await asyncio.sleep(self.random.uniform(0, 0.2))
        slowest_seconds = max(right.whole_seconds for right in self.bank.values())
        limit_seconds = max(STREAM_LIMIT_SECONDS, SLOWNESS * slowest_seconds)
        return await read_answer(router.process.host, router.http_port, MODEL, ask, limit_seconds)

    async def check(self, readings: Sequence[asyncio.Task[Reading]], broken: bool = False) -> list[Reading]:
        """Counts the verdicts. `broken`: their router died, so that ending visibly is right."""
        done = await asyncio.gather(*readings)
        for reading in done:
            self.judge(reading, broken)
        return done

    def judge(self, reading: Reading, broken: bool = False) -> None:
        """Counts one."""
        verdict = reading.judge(self.bank[reading.ask])
        self.tally.streams += 1
        if verdict == "broken":
            verdict = "exact" if broken else "lost"
            self.tally.facts["broken_visibly"] += broken
        if verdict != "exact":
            self.tally.counts[verdict] += 1
            right = self.bank[reading.ask].text
            came = f"{len(reading.text)} of {len(right)} characters, {reading.tokens} tokens, {reading.reason!r}"
            differs = f"differs at {first_difference(reading.text, right)}"
            self.tally.problems.append(f"{verdict}: {reading.problem or reading.status} ({came}; {differs})")

    async def check_leaks(self) -> None:
        """All pages are free again."""
        held = await self.fleet.find_leaks()
        self.tally.counts["leaked"] += bool(held)
        self.tally.problems += [f"leaked: {line}" for line in held]

    async def moment(self, role: str) -> float:
        """Waits for the moment of a fault of such a pod; the time since the epoch."""
        await asyncio.sleep(self.random.uniform(0.02, self.horizon_seconds[role != "prefill"]))
        return time.time()

    def time_it(self, readings: Sequence[Reading], victim: Member, at: float, struck: float) -> None:
        """`at`: seconds since the epoch, `struck`: of the monotonic clock, when the fault came."""
        listeners, words = self.fleet.routers, list(ROUTER_NOTICES)
        if victim.role == "prefill":
            listeners, words = self.fleet.role("decode"), list(DECODE_NOTICES)
        found = [seconds for each in listeners if (seconds := each.process.heard(at, words)) is not None]
        detection = min(found, default=None)
        if detection is not None:
            self.tally.times["detection"].append(detection)
        for reading in readings:
            began, seconds = reading.pause(struck)
            if detection is None or began + seconds < struck + detection or began > struck + AFFECTED_SECONDS:
                continue
            usual = self.bank[reading.ask].ttft_seconds if began == reading.sent_at else 0.0
            if seconds - usual > AFFECTED_SECONDS:
                self.tally.times["pause"].append(began + seconds - struck)
                self.tally.times["recompute"].append(began + seconds - struck - detection)
                if seconds - detection > SLOW_SECONDS and not self.tally.notes:
                    self._explain(reading, at, seconds)

    def _explain(self, reading: Reading, at: float, seconds: float) -> None:
        """What all processes said since the fault."""
        self.tally.notes.append(f"a pause of {seconds:.2f} s after {len(reading.text)} characters")
        for member in self.fleet.members:
            said = [f"{line.at - at:+.2f} {line.message}" for line in member.process.said if line.at >= at]
            self.tally.notes += [f"{member.process.name}: {line}" for line in said[:20]]


def first_difference(text: str, right: str) -> int:
    """Index of the first character that is not the same."""
    same = (index for index, (ours, theirs) in enumerate(zip(text, right, strict=False)) if ours != theirs)
    return next(same, min(len(text), len(right)))


async def kill(trial: Trial, victim: Member) -> None:
    """kill -9; it is started again at once, as a kubelet would."""
    readings = trial.ask(trial.fleet.routers[0])
    at, struck = await trial.moment(victim.role), time.monotonic()
    victim.process.signal(signal.SIGKILL)
    await victim.process.wait(10.0)
    await victim.process.start()
    trial.time_it(await trial.check(readings), victim, at, struck)


async def freeze(trial: Trial, victim: Member) -> None:
    """SIGSTOP; SIGCONT comes while other requests are under way, and the zombie must not disturb them."""
    await _stop_for_a_while(
        trial,
        victim,
        partial(victim.process.signal, signal.SIGSTOP),
        partial(victim.process.signal, signal.SIGCONT),
    )


async def freeze_router(trial: Trial, victim: Member) -> None:
    """Its pods drop its work meanwhile; once it goes on it resumes every stream where its client stands."""
    readings, others = trial.ask(victim), trial.ask(next(each for each in trial.fleet.routers if each is not victim))
    await trial.moment(victim.role)
    victim.process.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(trial.random.uniform(*FREEZE_SECONDS))
    finally:
        victim.process.signal(signal.SIGCONT)
    await trial.check([*readings, *others])


async def cut(trial: Trial, victim: Member) -> None:
    """Nothing comes through, and later all does again."""
    await _stop_for_a_while(trial, victim, victim.cut, victim.mend)


async def _stop_for_a_while(trial: Trial, victim: Member, stop: Callable[[], None], go_on: Callable[[], None]) -> None:
    first = trial.ask(trial.fleet.routers[0])
    long = trial.random.random() < LONG_FREEZE_SHARE
    at, struck = await trial.moment(victim.role), time.monotonic()
    stop()
    try:
        await asyncio.sleep(trial.random.uniform(*(FREEZE_SECONDS if long else BLINK_SECONDS)))
        second = trial.ask(trial.fleet.routers[0]) if long else []
        await asyncio.sleep(trial.random.uniform(0, 0.3))
    finally:
        go_on()
    trial.time_it(await trial.check(first), victim, at, struck)
    await trial.check(second)


async def damage_frames(fault: FrameFault, trial: Trial, _: Member) -> None:
    """KV frames on their way to any decode pod."""
    wires = [wire for pod in trial.fleet.role("prefill") for wire in pod.wires if wire.framed]
    before = sum(wire.injected for wire in wires)
    for wire in wires:
        wire.arm(fault, trial.random.randint(1, 4))
    await trial.check(trial.ask(trial.fleet.routers[0]))
    for wire in wires:
        wire.disarm()
    await trial.check(trial.ask(trial.fleet.routers[0], 2))  # what comes late meets these
    trial.tally.facts["injected"] += sum(wire.injected for wire in wires) - before


async def kill_router(trial: Trial, victim: Member) -> None:
    """Its own answers end visibly, its work is freed within 2 s, the clients of the other notice nothing."""
    other = next(router for router in trial.fleet.routers if router is not victim)
    theirs, others = trial.ask(victim), trial.ask(other)
    await trial.moment(victim.role)
    struck = time.monotonic()
    victim.process.signal(signal.SIGKILL)
    freed = await _freed_after(trial, struck)
    trial.tally.times["detection"].append(freed)
    if freed > FREED_SECONDS:
        trial.tally.counts["leaked"] += 1
        trial.tally.problems.append(f"leaked: pods still knew the dead router after {freed:.2f} s")
    await trial.check(theirs, broken=True)
    for reading in await trial.check(others):
        began, seconds = reading.pause(struck)
        if began > reading.sent_at:
            trial.tally.times["pause"].append(seconds)


async def _freed_after(trial: Trial, struck: float) -> float:
    """Seconds until every decode pod has dropped the router, and with it its requests and its share of the credits."""
    while True:
        values = [await pod.process.metrics() for pod in trial.fleet.role("decode")]
        seconds = time.monotonic() - struck
        left = len(trial.fleet.routers) - 1
        if all(each.get("tandem_engine_routers") == left for each in values) or seconds > 3 * FREED_SECONDS:
            return seconds
        await asyncio.sleep(0.02)


async def terminate_router(trial: Trial, victim: Member) -> None:
    """Loses nothing: not ready first, no new connection, all answers to their end, then exit code 0."""
    other = next((router for router in trial.fleet.routers if router is not victim), victim)
    theirs, others = trial.ask(victim), trial.ask(other)
    await asyncio.sleep(0.25)  # a connection that is refused is a client's to retry; these are in
    await trial.moment(victim.role)
    victim.process.signal(signal.SIGTERM)
    while victim.process.alive and (await get(victim.process.host, victim.process.metrics_port, "/readyz"))[0] == 200:
        await asyncio.sleep(0.01)
    late = await trial.ask(victim, 1)[0]
    if late.status or not late.problem.startswith("Connection"):  # refused, or else answered in full
        trial.judge(late)
    await trial.check([*theirs, *others])
    code = await victim.process.wait(END_SECONDS)
    if code != 0:
        trial.tally.counts["hung"] += 1
        trial.tally.problems.append(f"hung: the router ended with {code}")


async def terminate(trial: Trial, victim: Member) -> None:
    """SIGTERM of a pod whose answers take longer than its grace: they move."""
    readings = trial.ask(trial.fleet.routers[0])
    at, struck = await trial.moment(victim.role), time.monotonic()
    await _terminate(trial, [victim])
    trial.time_it(await trial.check(readings), victim, at, struck)


async def terminate_all(trial: Trial, victim: Member) -> None:
    """SIGTERM of every pod of a role: requests wait for the replacement."""
    readings = trial.ask(trial.fleet.routers[0])
    await trial.moment(victim.role)
    victims = trial.fleet.role(victim.role)
    await _terminate(trial, victims)
    await trial.check([*readings, *trial.ask(trial.fleet.routers[0], 2)])


async def _terminate(trial: Trial, victims: Sequence[Member]) -> None:
    for victim in victims:
        victim.process.signal(signal.SIGTERM)
    for victim in victims:
        code = await victim.process.wait(END_SECONDS)
        if code != 0:
            trial.tally.counts["hung"] += 1
            trial.tally.problems.append(f"hung: {victim.process.name} ended with {code} after SIGTERM")
            await victim.process.end()
        await victim.process.start()


async def flip(trial: Trial, victim: Member) -> None:
    """It takes the other role in place, and then its own again, each time with a grace that answers may outlast."""
    readings = trial.ask(trial.fleet.routers[0])
    await trial.moment(victim.role)
    struck = time.monotonic()
    for role in ("decode" if victim.role == "prefill" else "prefill", victim.role):
        grace_seconds = trial.random.uniform(0, GRACE_SECONDS)
        if not await victim.process.take_role(role, TOKEN, grace_seconds, END_SECONDS):
            trial.tally.counts["hung"] += 1
            trial.tally.problems.append(f"hung: {victim.process.name} became no {role} pod")
            await victim.process.end()
        readings += trial.ask(trial.fleet.routers[1], 2)
        await asyncio.sleep(trial.random.uniform(0, 0.3))
    for reading in await trial.check(readings):
        began, seconds = reading.pause(struck)
        if began > reading.sent_at:
            trial.tally.times["pause"].append(seconds)


Case = Callable[[Trial, Member], Awaitable[None]]


async def run_trial(trial: Trial, case: Case, victim: Member) -> None:
    """The case, then everything whole and idle again, then the books."""
    try:
        await case(trial, victim)
    finally:
        trial.fleet.revive()
    await trial.fleet.settle()
    await trial.check_leaks()
    trial.tally.trials += 1
