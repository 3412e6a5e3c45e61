"""What the router knows of its pods, kept as the choice needs it: snapshots, start-ups, prompts that they hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from tandem_runtime.contracts.hashing import chain
from tandem_runtime.contracts.pod_protocol import Submit
from tandem_runtime.contracts.signals import Startup
from tandem_runtime.policy.affinity import PrefixIndex
from tandem_runtime.policy.choice import NOTHING_CACHED
from tandem_runtime.policy.fleet import ChoiceLaw, Fleet
from tandem_runtime.policy.pods import PodSnapshot
from tandem_runtime.router.endpoints import Address
from tandem_runtime.router.fences import Fences
from tandem_runtime.router.link import PodLink

MAX_STARTUPS = 256
"""Start-up records that are kept; pods that come and go for weeks must not fill the memory."""
LEASE_CHECK_SECONDS = 0.5
"""A lease that ends is no event: all pods are looked at again that often."""


class PodBoard:
    """`touch` a link whenever something about it changed; `refresh` before choosing."""

    def __init__(self, law: ChoiceLaw, clock: Callable[[], float]) -> None:
        self.links: dict[Address, PodLink] = {}
        self.fleet = Fleet(law)
        self.fences = Fences()
        self.startups: dict[str, Startup] = {}
        """By incarnation, the latest ones."""
        self._clock = clock
        self._known: dict[str, PodLink] = {}
        self._prefixes = PrefixIndex()
        self._stale: set[PodLink] = set()
        self._leases_seen = clock()

    def touch(self, link: PodLink) -> None:
        """What the choice knows of it is out of date."""
        self._stale.add(link)

    def refresh(self, now: float) -> None:
        """Looks at the links that changed, and at all of them when leases may have ended."""
        if now - self._leases_seen >= LEASE_CHECK_SECONDS:
            self._leases_seen = now
            self.fences.forget(now)
            self._stale.update(self.links.values())
        for link in self._stale:
            snapshot = self._snapshot(link, now)
            if link.known_as and (snapshot is None or snapshot.incarnation != link.known_as):
                self.fleet.drop(link.known_as)
                self._prefixes.drop(link.known_as)
                self._known.pop(link.known_as, None)
            link.known_as = ""
            if snapshot is not None:
                self.fleet.put(snapshot, now)
                link.known_as = snapshot.incarnation
                self._known[snapshot.incarnation] = link
        self._stale.clear()

    def link_of(self, pod: PodSnapshot) -> PodLink:
        """Of a pod that was chosen."""
        return self._known[pod.incarnation]

    def snapshots(self) -> list[PodSnapshot]:
        """Of all pods that are connected."""
        now = self._clock()
        return [snapshot for link in self.links.values() if (snapshot := self._snapshot(link, now)) is not None]

    def _snapshot(self, link: PodLink, now: float) -> PodSnapshot | None:
        snapshot = link.snapshot(now)
        if snapshot is None or not self.fences:
            return snapshot
        self.fences.seen(snapshot.pod, snapshot.incarnation, now)
        return msgspec.structs.replace(snapshot, fenced=snapshot.incarnation in self.fences)

    def routers(self) -> int:
        """Connected to the pods, this one among them; 0 while no pod tells."""
        return max((link.state.routers for link in self.links.values() if link.state is not None), default=0)

    def note_start(self, link: PodLink) -> None:
        """It answered, or became ready."""
        hello, now = link.hello, self._clock()
        if hello is None:
            return
        known = self.startups.pop(hello.incarnation, None)
        ready = now if link.state is not None and link.state.ready else None
        if known is None:
            known = Startup(
                pod=hello.pod,
                role=hello.role,
                incarnation=hello.incarnation,
                loaded=now,
                ready=ready,
                flipped_from=hello.flipped_from,
                flip_s=hello.flip_seconds if hello.flipped_from else None,
            )
        elif known.ready is None and ready is not None:
            flip_s = None if known.flip_s is None else round(known.flip_s + ready - known.loaded, 3)
            known = msgspec.structs.replace(known, ready=ready, flip_s=flip_s)
        self.startups[hello.incarnation] = known
        if len(self.startups) > MAX_STARTUPS:
            del self.startups[next(iter(self.startups))]

    def blocks(self, request: Submit, key: bytes) -> list[bytes]:
        """Prefix hashes, where some pod keeps prefixes: they take 1.5 us a block."""
        if not any(link.hello is not None and link.hello.keeps_prefixes for link in self.links.values()):
            return []
        return chain(request.prompt_ids, key, request.tenant_salt)

    def cached_tokens(self, blocks: Sequence[bytes]) -> Mapping[str, int]:
        """By incarnation, what pods are expected to hold of a prompt."""
        return self._prefixes.cached_tokens(blocks) if blocks else NOTHING_CACHED

    def sent(self, link: PodLink, blocks: Sequence[bytes]) -> None:
        """A pod gets a prompt, and keeps it if it does that."""
        self.touch(link)
        if link.hello is not None and link.hello.keeps_prefixes:
            self._prefixes.note(link.hello.incarnation, blocks)
