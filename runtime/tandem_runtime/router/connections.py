"""A link to every listed pod, each run by a task of its own."""

from __future__ import annotations

import asyncio
from functools import partial

from tandem_runtime.contracts.pod_protocol import VERSION, RouterHello
from tandem_runtime.router.backlog import Backlog
from tandem_runtime.router.endpoints import Address
from tandem_runtime.router.lanes import LaneLibrary, Lanes
from tandem_runtime.router.link import LinkEvents, PodLink
from tandem_runtime.router.settings import RouterSettings


class Connections:
    """Fills and empties `links`; `events` hears what they bring."""

    def __init__(
        self, links: dict[Address, PodLink], settings: RouterSettings, events: LinkEvents, backlog: Backlog
    ) -> None:
        self.lanes: LaneLibrary | None = None
        self._links = links
        self._settings = settings
        self._events = events
        self._backlog = backlog
        self._tasks: dict[Address, asyncio.Task[None]] = {}

    def set_addresses(self, addresses: frozenset[Address]) -> None:
        """The whole set of pods. One that is no longer in it is served as long as its connection holds."""
        for address, link in self._links.items():
            link.listed = address in addresses
        for address in addresses:
            task = self._tasks.get(address)
            if task is None or task.done():
                link = PodLink(address, self._hello, self._settings.links, self._events, lanes=self.lanes)
                link.ping = self._backlog.ping
                self._links[address] = link
                self._tasks[address] = asyncio.get_running_loop().create_task(link.run())
                self._tasks[address].add_done_callback(partial(self._forget, address, link))

    def use_lanes(self, library: LaneLibrary) -> None:
        """From the next Step on compiled code writes what is plain."""
        self.lanes = library
        for link in self._links.values():
            link.lanes = Lanes(library)

    async def close(self) -> None:
        """Ends all of them."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _hello(self) -> RouterHello:
        """For one connection: the token may change while the router runs."""
        settings = self._settings
        return RouterHello(VERSION, settings.router_id, settings.incarnation, settings.token(), settings.revision)

    def _forget(self, address: Address, link: PodLink, _: asyncio.Task[None]) -> None:
        if self._links.get(address) is link:
            del self._links[address]
            self._tasks.pop(address, None)
