"""The fast lane: compiled code writes plain deltas of streams straight to their clients, a whole Step in one call.

It knows nothing of requests. Whatever is not the next plain delta of a stream it holds (a last one, one out of order,
one that a socket did not take whole) is Python's, and before Python looks at a flight the flight leaves the lane.
"""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import weakref
from ctypes import POINTER, c_bool, c_char_p, c_double, c_int, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from tandem_runtime.native.build import LANES, BuildError, find_library
from tandem_runtime.openai.backend import Lane

if TYPE_CHECKING:
    from tandem_runtime.router.flight import Flight

log = logging.getLogger(__name__)

MOST_DELTAS: Final = 16_384
"""Of one Step; one with more is Python's."""
FILES_SHARE: Final = 0.5
"""A stream in the lane holds a second descriptor of its socket; the other half of what the process may have open stays
for connections."""


class _Left(ctypes.Structure):
    _fields_ = (
        ("ids", POINTER(c_int64)),
        ("ids_count", c_int64),
        ("last_at", c_double),
        ("unsent", c_void_p),
        ("unsent_bytes", c_int64),
    )


@dataclass(frozen=True, slots=True)
class LaneLibrary:
    """Functions of `source/lanes.cpp`. They hold the GIL: none of them waits."""

    functions: ctypes.PyDLL
    most_files: int


@cache
def load_lanes() -> LaneLibrary | None:
    """Compiles it the first time where it was not built ahead (seconds); None where that cannot be."""
    try:
        library = ctypes.PyDLL(str(find_library(LANES)))
    except (BuildError, OSError) as error:
        log.info("no compiled lanes, Python writes every chunk: %s", error)
        return None
    declare = {
        "lanes_new": (c_void_p, ()),
        "lanes_free": (None, (c_void_p,)),
        "lanes_enter": (
            None,
            (c_void_p, c_int64, c_char_p, c_int64, c_int64, c_int, c_char_p, c_int64, c_char_p, c_int64),
        ),
        "lanes_deliver": (
            c_int64,
            (c_void_p, c_char_p, c_int64, POINTER(c_int32), POINTER(c_int64), c_int64, POINTER(c_int64)),
        ),
        "lanes_look": (c_bool, (c_void_p, c_char_p, POINTER(_Left))),
        "lanes_leave": (None, (c_void_p, c_char_p)),
    }
    for name, (result, arguments) in declare.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return LaneLibrary(library, int(FILES_SHARE * soft))


@dataclass(slots=True)
class _Entry:
    flight: Flight
    lane: Lane
    socket: int


class Lanes:
    """Of one pod's connection. All calls are made on the event loop."""

    def __init__(self, library: LaneLibrary) -> None:
        self._library = library.functions
        self._most_files = library.most_files
        self._table = self._library.lanes_new()
        weakref.finalize(self, self._library.lanes_free, self._table)
        self._entries: dict[int, _Entry] = {}
        self._offered: set[Flight] = set()
        self._number = 0
        self._left = (c_int32 * MOST_DELTAS)()
        self._stuck = (c_int64 * MOST_DELTAS)()
        self._stuck_count = c_int64()

    def __len__(self) -> int:
        return len(self._entries)

    def offer(self, flight: Flight) -> None:
        """It may enter before the next Step, when what was written so far is with the kernel."""
        self._offered.add(flight)

    def pass_on(self, message: bytes) -> list[int] | None:
        """Places of a Step's deltas that are not written yet; None: nothing was done with the message."""
        if self._offered:
            for flight in self._offered:
                self._enter(flight)
            self._offered.clear()
        if not self._entries:
            return None
        left = self._library.lanes_deliver(
            self._table, message, len(message), self._left, self._stuck, MOST_DELTAS, self._stuck_count
        )
        for place in range(self._stuck_count.value):
            self.leave(self._entries[self._stuck[place]].flight)
        return None if left < 0 else self._left[:left]

    def leave(self, flight: Flight) -> None:
        """Brings the flight and the front's books up to date. Idempotent."""
        entry = self._entries.pop(flight.lane_number, None)
        if entry is None:
            return
        flight.lane_number = 0
        left, name = _Left(), flight.submit.id.encode()
        self._library.lanes_look(self._table, name, left)
        ids = left.ids[: left.ids_count]
        unsent = ctypes.string_at(left.unsent, left.unsent_bytes)
        self._library.lanes_leave(self._table, name)
        os.close(entry.socket)
        flight.emitted_ids += ids
        entry.lane.took(len(ids), left.last_at, unsent)

    def _enter(self, flight: Flight) -> None:
        """Not while its socket has bytes to write, nor when it went elsewhere or ended meanwhile."""
        if flight.link is None or flight.link.lanes is not self or flight.lane is None or flight.lane_number:
            return
        lane = flight.lane()
        if lane is None:
            return
        socket = os.dup(lane.socket)  # ours: never that of another client, whenever the front closes its own
        if socket >= self._most_files:
            os.close(socket)
            return
        self._number += 1
        flight.lane_number = self._number
        self._entries[self._number] = _Entry(flight, lane, socket)
        self._library.lanes_enter(
            *(self._table, self._number, flight.submit.id.encode(), flight.attempt, len(flight.emitted_ids), socket),
            *(lane.before, len(lane.before), lane.after, len(lane.after)),
        )
