"""Pods come and go: devices are granted, pods start, drain without loss, are killed at grace; all of it is billed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import exp
from random import Random
from typing import NamedTuple

from tandem_operator.simulation.decode import DecodePod
from tandem_operator.simulation.events import Events
from tandem_operator.simulation.prefill import PrefillPod
from tandem_operator.simulation.scenario import Startup

AnyPod = PrefillPod | DecodePod


class Bill(NamedTuple):
    """One pod's stay on its devices."""

    role: str
    gpus: int
    from_s: float
    to_s: float


class Pool:
    """Pods of one role. `make` gives a new pod of a name."""

    def __init__(self, role: str, make: Callable[[str], AnyPod]) -> None:
        self.role = role
        self.make = make
        self.pods: list[AnyPod] = []
        """All that are not gone, in order of creation."""
        self.target = 0
        self.made = 0


class Supply:
    """Both pools on one stock of devices. `changed` is called when pods that take work came or went."""

    def __init__(
        self,
        events: Events,
        pools: tuple[Pool, Pool],
        startup: Startup,
        gpus: int | None,
        grace_s: float,
        flip_s: float | None,
        seed: int,
        changed: Callable[[], None],
        killed: Callable[[AnyPod], None],
    ) -> None:
        self.events = events
        self.pools = pools
        self.bills: list[Bill] = []
        self.wasted: list[float] = []
        """When a pod went that had not served anything."""
        self.created: list[float] = []
        """When a pod was asked for."""
        self.removed: list[float] = []
        """When a pod was let go."""
        self.flipped: list[float] = []
        """When a pod was told to take the other role; neither asked for nor let go."""
        self.preemptions = 0
        """Of pods that are gone."""
        self._startup = startup
        self._gpus = gpus
        self._used = 0
        self._grace_s = grace_s
        self._flip_s = flip_s
        self._flips: dict[AnyPod, AnyPod] = {}
        """Pods on their way out, and what will stand on their devices."""
        self._seed = seed
        self._changed = changed
        self._killed = killed
        self._pending: deque[AnyPod] = deque()

    @property
    def grantable(self) -> int | None:
        """Devices that nobody has been promised."""
        if self._gpus is None:
            return None
        return max(0, self._gpus - self._used - sum(pod.gpus for pod in self._pending))

    def begin(self, counts: tuple[int, int]) -> None:
        """Pods that are ready before anything happens."""
        for pool, count in zip(self.pools, counts, strict=True):
            pool.target = count
            for _ in range(count):
                pod = self._make(pool)
                self._used += pod.gpus
                pod.created_s = pod.scheduled_s = pod.ready_s = self.events.now
                pod.served = True

    def scale(self, targets: tuple[int, int]) -> None:
        """Frees before it asks, so that one pool's devices can become the other's; roles change where they can, and
        a pod that serves takes the place of one that has yet to start."""
        for pool, target, other, wanted in zip(self.pools, targets, self.pools[::-1], targets[::-1], strict=True):
            pool.target = target
            alive = [pod for pod in pool.pods if pod.draining_s < 0]
            for pod in sorted(alive, key=_keep)[: max(0, len(alive) - target)]:
                starting = sorted(_starting(other), key=_keep)
                if self._flip_s is not None and pod.ready_s >= 0 and _alive(other) - len(starting) < wanted:
                    for late in starting[: max(0, _alive(other) - wanted + 1)]:
                        self._give_up(late)
                    self._flip(pod, other)
                    self._let_go(pod)
                else:
                    self._give_up(pod)
        for pool, target in zip(self.pools, targets, strict=True):
            alive = [pod for pod in pool.pods if pod.draining_s < 0]
            for _ in range(target - len(alive)):
                self.created.append(self.events.now)
                self._pending.append(self._make(pool))
        self._grant()

    def _give_up(self, pod: AnyPod) -> None:
        self.removed.append(self.events.now)
        if not pod.served:
            self.wasted.append(self.events.now)
        self._let_go(pod)

    def check_drained(self, pod: AnyPod) -> None:
        """Called when work of the pod ended."""
        if pod.draining_s >= 0 and pod.gone_s < 0 and pod.idle:
            self._remove(pod)

    def settle(self) -> None:
        """End of the run: bills what is still there."""
        for pool in self.pools:
            for pod in pool.pods:
                self._bill(pod)

    def _make(self, pool: Pool) -> AnyPod:
        pool.made += 1
        pod = pool.make(f"{pool.role}-{pool.made:04d}")
        pool.pods.append(pod)
        return pod

    def _grant(self) -> None:
        while self._pending:
            pod = self._pending[0]
            if self._gpus is not None and self._used + pod.gpus > self._gpus:
                return
            self._pending.popleft()
            self._used += pod.gpus
            random = Random(f"{self._seed} start of {pod.name}")
            node_s = self._draw(random, self._startup.node_s)
            parts = (self._startup.image_s, self._startup.weights_s, self._startup.warmup_s)
            start_s = sum(self._draw(random, part) for part in parts)
            if node_s + start_s <= 0:
                pod.scheduled_s = pod.ready_s = self.events.now
                self._changed()
            else:
                self.events.at(self.events.now + node_s, self._schedule, (pod, start_s))

    def _draw(self, random: Random, median_s: float) -> float:
        return median_s * exp(self._startup.spread * random.gauss(0.0, 1.0))

    def _schedule(self, what: tuple[AnyPod, float]) -> None:
        pod, start_s = what
        if pod.gone_s < 0:
            pod.scheduled_s = self.events.now
            self.events.at(self.events.now + start_s, self._become_ready, pod)

    def _become_ready(self, pod: AnyPod) -> None:
        if pod.gone_s < 0:
            pod.ready_s = self.events.now
            self._changed()

    def _flip(self, pod: AnyPod, other: Pool) -> None:
        """`other` gets a pod that starts on the devices of `pod` when that is drained."""
        new = self._make(other)
        if new.gpus != pod.gpus:
            raise ValueError(f"a pod of {pod.gpus} devices cannot become one of {new.gpus}; set flip_s to None")
        new.flipped = True
        self._flips[pod] = new
        self.flipped.append(self.events.now)

    def _let_go(self, pod: AnyPod) -> None:
        pod.draining_s = self.events.now
        if pod.ready_s < 0 or pod.idle:
            self._remove(pod)
        else:
            self.events.at(self.events.now + self._grace_s, self._kill, pod)
            self._changed()

    def _kill(self, pod: AnyPod) -> None:
        if pod.gone_s < 0:
            self._remove(pod)
            self._killed(pod)

    def _remove(self, pod: AnyPod) -> None:
        pod.gone_s = self.events.now
        self.preemptions += pod.preemptions
        for pool in self.pools:
            if pod in pool.pods:
                pool.pods.remove(pod)
        heir = self._flips.pop(pod, None)
        donor = next((old for old, new in self._flips.items() if new is pod), None)
        if pod in self._pending:
            self._pending.remove(pod)
        elif donor is not None:
            del self._flips[donor]
        elif heir is not None and self._flip_s is not None:
            heir.scheduled_s = self.events.now
            self.events.at(self.events.now + self._flip_s, self._become_ready, heir)
        else:
            self._used -= pod.gpus
            self._grant()
        self._bill(pod)
        self._changed()

    def _bill(self, pod: AnyPod) -> None:
        if pod.scheduled_s >= 0:
            self.bills.append(Bill(pod.role, pod.gpus, pod.scheduled_s, self.events.now))


def _alive(pool: Pool) -> int:
    return sum(pod.draining_s < 0 for pod in pool.pods)


def _starting(pool: Pool) -> list[AnyPod]:
    return [pod for pod in pool.pods if pod.ready_s < 0 and pod.draining_s < 0 and not pod.flipped]


def _keep(pod: AnyPod) -> tuple[int, float, float]:
    """Those to let go first come first: not scheduled, not ready, then the emptiest; the youngest of equals."""
    stage = 0 if pod.scheduled_s < 0 else 1 if pod.ready_s < 0 else 2
    load = (pod.waiting_tokens if isinstance(pod, PrefillPod) else pod.requests) if stage == 2 else 0
    return (stage, load, -pod.created_s)
