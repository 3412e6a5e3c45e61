"""Which addresses are pods: the endpoint file and what the names in it resolve to, both looked at every second."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tandem_runtime.contracts.endpoints import read_endpoints, split_address

log = logging.getLogger(__name__)


class Address(NamedTuple):
    """Internal port of a pod."""

    host: str
    port: int


class EndpointWatcher:
    """Tells `apply` the whole set of addresses whenever it changes."""

    def __init__(self, path: Path, apply: Callable[[frozenset[Address]], None], watch_seconds: float) -> None:
        self.routers = 1
        """As the file says."""
        self._path = path
        self._apply = apply
        self._watch_seconds = watch_seconds
        self._listed: frozenset[Address] = frozenset()
        self._services: dict[str, Address] = {}
        self._problem = ""
        self._resolved: dict[str, frozenset[Address]] = {}
        self._lookups: dict[str, asyncio.Task[None]] = {}
        self._applied: frozenset[Address] | None = None

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                try:
                    self._read()
                    self._resolve()
                    self._tell()
                except Exception:  # without the watcher the router would never see another pod
                    log.exception("looking at the endpoints failed; trying again")
                await asyncio.sleep(self._watch_seconds)
        finally:
            for lookup in self._lookups.values():
                lookup.cancel()

    def _read(self) -> None:
        """A file that is missing or broken leaves what was known, and is reported once."""
        try:
            endpoints = read_endpoints(self._path)
            self._listed = frozenset(Address(*split_address(entry.address)) for entry in endpoints.pods)
            self._services = {entry.service: Address(*split_address(entry.service)) for entry in endpoints.services}
            self.routers = max(1, endpoints.routers)
            problem = ""
        except (OSError, ValueError) as error:
            problem = str(error)
        if problem and problem != self._problem:
            log.warning("endpoint file: %s; keeping the %d addresses known", problem, len(self._applied or ()))
        self._problem = problem

    def _resolve(self) -> None:
        """One lookup at a time for each name: a name server that hangs holds one thread, not one a second."""
        self._resolved = {name: found for name, found in self._resolved.items() if name in self._services}
        for service in self._services:
            running = self._lookups.get(service)
            if running is None or running.done():
                self._lookups[service] = asyncio.get_running_loop().create_task(self._look_up(service))

    async def _look_up(self, service: str) -> None:
        host, port = self._services[service]
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, OverflowError) as error:
            if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
                return  # the name server is away, which says nothing about the pods
            found = []
        self._resolved[service] = frozenset(Address(str(entry[4][0]), port) for entry in found)
        self._tell()

    def _tell(self) -> None:
        addresses = self._listed.union(*self._resolved.values())
        if addresses != self._applied:
            self._applied = addresses
            self._apply(addresses)
