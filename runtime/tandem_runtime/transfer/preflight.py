"""Connections to prefill pods before there is a request: each is tested, kept, and a second peer when one fails.

A decode pod waits for the first tests before it is ready, but never long: without a peer, or with one that fails, it
serves all the same, because it can compute prompts itself.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from hashlib import blake2b
from typing import Final

from tandem_runtime.transfer.receiver import KvReceiver

log = logging.getLogger(__name__)

Address = tuple[str, int]
FIRST_TESTS_SECONDS: Final = 5.0
"""Longest that readiness waits for them."""
LOOK_SECONDS: Final = 2.0
"""How soon a new prefill pod is seen."""
LONGEST_PAUSE_SECONDS: Final = 60.0
"""Between two attempts at a peer that fails."""
MAX_LINKS: Final = 16
"""Of a large fleet each decode pod knows some, and not all of them the same."""


class Preflight:
    """Of one decode pod. `peers`: HOST:PORT, a name stands for all of its addresses."""

    def __init__(
        self,
        receiver: KvReceiver,
        peers: Sequence[str],
        on_change: Callable[[], None] = lambda: None,
        resolve: Callable[[str, int], Awaitable[list[Address]]] | None = None,
    ) -> None:
        self.settled = not peers
        """The first tests are over, or there is nobody to test with."""
        self._receiver, self._on_change = receiver, on_change
        self._peers = [split(peer) for peer in peers]
        self._resolve = resolve or resolve_addresses
        self._failures: dict[Address, tuple[int, float]] = {}
        """Attempts in a row, and when the next one is due."""
        self._task: asyncio.Task[None] | None = None
        self._now = asyncio.get_running_loop().time

    def start(self) -> None:
        """Looks for peers from now on."""
        if self._peers:
            self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        """Connections that stand are not touched."""
        if self._task is not None:
            self._task.cancel()

    def words(self) -> str:
        """One line for people: what of the link is known."""
        if not self.settled:
            return "testing the link to prefill pods"
        return self._receiver.links.summary()

    async def _run(self) -> None:
        while True:
            try:
                await self._look()
            except Exception:  # readiness hangs on this task
                log.exception("looking for prefill pods failed; trying again")
            if not self.settled:
                self.settled = True
                log.info("kv links: %s", self.words())
                self._on_change()
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        links = [self._receiver.link(address) for address in await self._addresses() if self._is_due(address)]
        waits = [asyncio.create_task(link.settled.wait()) for link in links]
        if waits:
            _, late = await asyncio.wait(waits, timeout=FIRST_TESTS_SECONDS)
            for wait in late:
                wait.cancel()
        for link in links:
            self._note(link.address, failed=link.closed)

    async def _addresses(self) -> list[Address]:
        found: set[Address] = set()
        for host, port in self._peers:
            found.update(await self._resolve(host, port))
        own = self._receiver.identity.incarnation
        self._failures = {address: state for address, state in self._failures.items() if address in found}
        return sorted(found, key=lambda address: blake2b(f"{own} {address}".encode()).digest())[:MAX_LINKS]

    def _is_due(self, address: Address) -> bool:
        return self._failures.get(address, (0, 0.0))[1] <= self._now()

    def _note(self, address: Address, failed: bool) -> None:
        if not failed:
            self._failures.pop(address, None)
            return
        count = self._failures.get(address, (0, 0.0))[0] + 1
        pause = min(LONGEST_PAUSE_SECONDS, LOOK_SECONDS * 2 ** min(count - 1, 10))
        self._failures[address] = (count, self._now() + pause)


def split(peer: str) -> Address:
    """HOST:PORT. Raises ValueError."""
    host, separator, port = peer.rpartition(":")
    if not (host and separator and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{peer!r} is not HOST:PORT")
    return host, int(port)


async def resolve_addresses(host: str, port: int) -> list[Address]:
    """All addresses that a name has now; none when it has none yet."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [(str(address[0]), port) for *_, address in found]
