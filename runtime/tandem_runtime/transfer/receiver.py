"""Decode side of the hand-off: which prefill pod is asked for a request's KV, and what happens when it does not come.

Another prefill pod is asked once; then the engine computes the prompt itself. Never an error for the client.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass

from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.contracts.pod_protocol import PrefillPeer
from tandem_runtime.engine.events import RemoteCommit, RemoteFailed, RemotePage
from tandem_runtime.transfer.channel import Channel
from tandem_runtime.transfer.identity import KvIdentity
from tandem_runtime.transfer.inbound import Inbound
from tandem_runtime.transfer.link_health import LinkTable
from tandem_runtime.transfer.pull import Pull
from tandem_runtime.transfer.receiver_link import ReceiverLink
from tandem_runtime.transfer.wire import TransferStats

log = logging.getLogger(__name__)

UNTAKEN_BYTES = 16 << 20
"""Payload that may wait for the engine's next step; beyond it TCP holds the senders back."""
BATCH_BYTES = 2 << 20
"""Payload that wakes the engine: a turn for each page would cost it, and us, more than writing the page."""
ROOM_POLL_SECONDS = 0.001


@dataclass(slots=True)
class Fetch:
    """One request under way."""

    pull: Pull
    link: ReceiverLink
    attempt: Inbound


class KvReceiver:
    """All prefill pods that this decode pod takes KV from; one persistent connection each."""

    def __init__(self, identity: KvIdentity, stats: TransferStats) -> None:
        self.identity, self.stats = identity, stats
        self.links = LinkTable()
        """By HOST:PORT."""
        self.fallbacks: Counter[str] = Counter()
        """Why prompts were computed here after all -> how often."""
        self.retries: Counter[str] = Counter()
        """Why a second prefill pod was asked -> how often."""
        self._handed_bytes = 0
        self._batch: list[RemotePage] = []
        self._batch_bytes = 0
        self._links: dict[tuple[str, int], ReceiverLink] = {}
        self._fetches: dict[int, Fetch] = {}
        self._now = asyncio.get_running_loop().time
        self._stopped = False

    @property
    def transfers(self) -> int:
        """Requests whose KV is under way."""
        return len(self._fetches)

    def link(self, address: tuple[str, int]) -> ReceiverLink:
        """The connection to that kv port; opened when there is none."""
        link = self._links.get(address)
        if link is None or link.closed:
            link = self._links[address] = ReceiverLink(self, address)
        return link

    def fetch(self, pull: Pull) -> None:
        """Starts a transfer; the engine is told of its pages and its end. Never raises."""
        attempt = pull.start(self.identity.layout, self.identity.limits, self._now())
        link = self.link((attempt.peer.address, attempt.peer.kv_port))
        self._fetches[pull.handle] = Fetch(pull, link, attempt)
        link.add(attempt)

    def abandon(self, handle: int, reason: str = "") -> None:
        """The engine has no more use for it: the peer is told, later frames are stale. With `reason` the prompt is
        computed here, and that is counted. Idempotent."""
        fetch = self._fetches.pop(handle, None)
        if fetch is not None:
            fetch.link.drop(fetch.attempt, reason or "no longer wanted")
            if reason:
                self._count_fallback(fetch, reason)

    def gave_up(self, attempt: Inbound, reason: str) -> None:
        """This attempt is over: another prefill pod is asked, or the engine computes here."""
        fetch = self._fetches.get(attempt.handle)
        if fetch is None or fetch.attempt is not attempt:
            return
        if not self._stopped and fetch.pull.retry(self._others(attempt), self._now()):
            self.stats.retries += 1
            self.retries[reason] += 1
            log.warning("request %s asks another pod: %s (%s)", attempt.key[0], reason, attempt.peer.pod)
            self.fetch(fetch.pull)
            return
        del self._fetches[attempt.handle]
        self._count_fallback(fetch, reason)
        self._flush()
        self.identity.engine.send(RemoteFailed(attempt.handle))

    def _others(self, attempt: Inbound) -> list[PrefillPeer]:
        """Prefill pods of this revision whose connection stands, the least loaded first."""
        able = [link for link in self._links.values() if link.able(self.identity.facts.revision)]
        able.sort(key=lambda link: (link.peer_queue_tokens, link.address))
        return [PrefillPeer(link.peer_name, *link.address, link.peer_incarnation) for link in able]

    def _count_fallback(self, fetch: Fetch, reason: str) -> None:
        self.stats.fallbacks += 1
        self.fallbacks[reason] += 1
        peers = ", ".join(peer.pod for peer in fetch.pull.tried)
        log.warning("request %s computes its prompt here: %s (%s)", fetch.attempt.key[0], reason, peers)

    def completed(self, attempt: Inbound, commit: kv.Commit) -> None:
        """Everything is here and checked."""
        self._fetches.pop(attempt.handle, None)
        self.stats.completed += 1
        command = RemoteCommit(
            handle=attempt.handle,
            first_token=commit.first_token,
            logprob=commit.logprob,
            bytes_received=attempt.received_bytes,
            alternatives=commit.alternatives,
            cached_tokens=commit.cached_tokens,
        )
        self._flush()
        self.identity.engine.send(command)

    def hand_over(self, page: RemotePage) -> None:
        """To the engine, which writes it between two steps; with others, and before anything else that it is told."""
        self._handed_bytes += len(page.payload)
        self._batch_bytes += len(page.payload)
        self._batch.append(page)
        if self._batch_bytes >= BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        for page in batch:
            self.identity.engine.send(page)

    async def room(self, channel: Channel) -> None:
        """Waits while too much payload waits for the engine."""
        engine = self.identity.engine.engine
        while self._handed_bytes - self._batch_bytes - engine.taken_bytes > UNTAKEN_BYTES and not engine.ended.done():
            channel.heard = True  # the peer is not silent, we do not listen
            await asyncio.sleep(ROOM_POLL_SECONDS)

    def renew(self, identity: KvIdentity) -> None:
        """This pod is another one from now on: connections end; there is no request that hangs on them."""
        self.identity = identity
        self.links = LinkTable()
        links, self._links = self._links, {}
        for link in links.values():
            link.close()

    def stop(self) -> None:
        """Closes all connections."""
        self._stopped = True
        for link in list(self._links.values()):
            link.close()

    def dropped(self, link: ReceiverLink) -> None:
        """The link is closed."""
        if self._links.get(link.address) is link:
            del self._links[link.address]
