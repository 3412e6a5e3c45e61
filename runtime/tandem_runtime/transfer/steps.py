"""What the pure state machines of a hand-off ask their shell to do."""

from __future__ import annotations

from dataclasses import dataclass

from tandem_runtime.contracts import kv_protocol as kv


@dataclass(frozen=True, slots=True)
class Tell:
    """Send this to the peer."""

    message: kv.Message


@dataclass(frozen=True, slots=True)
class Completed:
    """D: all pages are here and checked; the engine goes on with what `commit` says. The attempt is over."""

    commit: kv.Commit


@dataclass(frozen=True, slots=True)
class GivenUp:
    """The attempt is over without a result, for a reason that is counted: another peer may be asked."""

    reason: str


@dataclass(frozen=True, slots=True)
class Reread:
    """P: hand out these pages of the request (by number) once more."""

    ordinals: list[int]


@dataclass(frozen=True, slots=True)
class Released:
    """P: nobody needs the request any more, its pages are free. `completed`: D has said that it has everything."""

    completed: bool


InboundStep = Tell | Completed | GivenUp
OutboundStep = Tell | Reread | Released
