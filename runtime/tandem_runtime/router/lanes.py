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

MANY_FILES: Final = 1 << 20
"""Where the process may have as many as it likes."""


class _Left(ctypes.Structure):
    _fields_ = (
        ("ids", POINTER(c_int64)),
        ("ids_count", c_int64),
        ("last_at", c_double),
        ("unsent", c_void_p),
        ("unsent_bytes", c_int64),
    )


class LaneLibrary:
    """Functions of `source/lanes.cpp`, which hold the GIL: none of them waits. One event loop uses it."""

    def __init__(self, functions: ctypes.PyDLL, most_files: int) -> None:
        self.functions = functions
        self.most_files = most_files
        self.left = (c_int32 * MOST_DELTAS)()
        self.stuck = (c_int64 * MOST_DELTAS)()
        self.stuck_count = c_int64()


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
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)  # the front raises its limit to that
    return LaneLibrary(library, MANY_FILES if most_files < 0 else int(FILES_SHARE * most_files))


@dataclass(slots=True)
class _Entry:
    flight: Flight
    lane: Lane
    socket: int


class Lanes:
    """Of one pod's connection. All calls are made on the event loop."""

    def __init__(self, library: LaneLibrary) -> None:
        self._library, self._functions = library, library.functions
        self._table = self._functions.lanes_new()
        weakref.finalize(self, self._functions.lanes_free, self._table)
        self._entries: dict[int, _Entry] = {}
        self._offered: set[Flight] = set()
        self._number = 0

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
        at = self._library
        left = self._functions.lanes_deliver(
            self._table, message, len(message), at.left, at.stuck, MOST_DELTAS, at.stuck_count
        )
        for place in range(at.stuck_count.value):
            self.leave(self._entries[at.stuck[place]].flight)
        return None if left < 0 else at.left[:left]

    def leave(self, flight: Flight) -> None:
        """Brings the flight and the front's books up to date. Idempotent."""
        entry = self._entries.pop(flight.lane_number, None)
        if entry is None:
            return
        flight.lane_number = 0
        left, name = _Left(), flight.submit.id.encode()
        self._functions.lanes_look(self._table, name, left)
        ids = left.ids[: left.ids_count]
        unsent = ctypes.string_at(left.unsent, left.unsent_bytes)
        self._functions.lanes_leave(self._table, name)
        os.close(entry.socket)
        flight.emitted_ids += ids
        entry.lane.took(len(ids), left.last_at, unsent)

    def _enter(self, flight: Flight) -> None:
        """Not while its socket has bytes to write, nor when it went elsewhere or ended meanwhile."""
        if flight.link is None or flight.link.lanes is not self or flight.prefill_link is not None:
            return
        lane = flight.lane() if flight.lane is not None and not flight.lane_number else None
        if lane is None:
            return
        try:
            socket = os.dup(lane.socket)  # ours: never that of another client, whenever the front closes its own
        except OSError:  # no file is left
            return
        if socket >= self._library.most_files:
            os.close(socket)
            return
        self._number += 1
        flight.lane_number = self._number
        self._entries[self._number] = _Entry(flight, lane, socket)
        self._functions.lanes_enter(
            *(self._table, self._number, flight.submit.id.encode(), flight.attempt, len(flight.emitted_ids), socket),
            *(lane.before, len(lane.before), lane.after, len(lane.after)),
        )
