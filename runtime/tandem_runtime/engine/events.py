"""What goes into the engine thread (commands) and what comes out of it (events), named by the request's handle."""

from __future__ import annotations

from dataclasses import dataclass, field

from tandem_runtime.contracts.pod_protocol import Reason
from tandem_runtime.contracts.sampling import Alternatives
from tandem_runtime.engine.request import Request

Payload = bytes | bytearray | memoryview
Parts = list[tuple[int, int, Payload]]
"""Payload of one page, by layers [first, end)."""


@dataclass(frozen=True, slots=True)
class Add:
    """A new request."""

    request: Request


@dataclass(frozen=True, slots=True)
class Abort:
    """Ends the request without an event and frees its pages; an unknown handle is ignored."""

    handle: int


@dataclass(frozen=True, slots=True)
class RemotePage:
    """Bytes of layers [layer_first, layer_end) that belong at the request's page number `ordinal`."""

    handle: int
    ordinal: int
    generation: int
    layer_first: int
    layer_end: int
    payload: Payload


@dataclass(frozen=True, slots=True)
class RemoteCommit:
    """All pages of the request are here; `first_token` follows the tokens it came with."""

    handle: int
    first_token: int
    logprob: float
    bytes_received: int
    alternatives: Alternatives = field(default_factory=list)
    cached_tokens: int = 0
    """Of the tokens it came with, those whose KV the other pod had already."""


@dataclass(frozen=True, slots=True)
class RemoteFailed:
    """No KV will come: the request computes its prompt here."""

    handle: int


@dataclass(frozen=True, slots=True)
class PagesTaken:
    """So many bytes of PagesComputed are sent or thrown away: there is room for more."""

    payload_bytes: int


@dataclass(frozen=True, slots=True)
class PagesAgain:
    """Handoff: PagesComputed of these pages once more (by number in the sequence); what was sent did not arrive."""

    handle: int
    ordinals: list[int]


Command = Add | Abort | RemotePage | RemoteCommit | RemoteFailed | PagesTaken | PagesAgain


@dataclass(frozen=True, slots=True)
class Reserved:
    """Pages for a request that waits for KV from another pod: (page, generation) in order of the sequence.

    The first `have_pages` of them hold their KV already, and are others' too: nothing may be written there.
    """

    handle: int
    pages: list[tuple[int, int]]
    have_pages: int = 0


@dataclass(frozen=True, slots=True)
class Output:
    """New output tokens, the first of which has index `output_index`; and whence the KV came so far."""

    handle: int
    output_index: int
    ids: list[int]
    logprobs: list[float]
    prefilled_here: int
    kv_bytes_received: int
    cached_tokens: int = 0
    """Of the tokens it came with, those whose KV was here already."""
    alternatives: list[Alternatives] = field(default_factory=list)
    """By token, where sampling.logprobs asks for them."""
    queued_seconds: float = 0.0
    """From its arrival to when it held pages."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The request is complete: `reason` is stop or length."""

    handle: int
    reason: str


@dataclass(frozen=True, slots=True)
class Broken:
    """The request ended without a result. `retryable`: another pod may well serve it."""

    handle: int
    reason: Reason
    message: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class RemoteAbandoned:
    """The engine no longer waits for the KV of this request: the transfer is to be given up."""

    handle: int


@dataclass(frozen=True, slots=True)
class PagesComputed:
    """Handoff: pages `first` and following of the request are complete; payload of layers as (first, end, bytes).

    Answer each with PagesTaken: the engine holds more pages back while too many bytes are out.
    """

    handle: int
    first: int
    payloads: list[Parts]


@dataclass(frozen=True, slots=True)
class PrefillDone:
    """Handoff: everything is computed; PagesComputed of the last pages may still come. Pages are held until Abort."""

    handle: int
    first_token: int
    logprob: float
    n_tokens: int
    cached_tokens: int = 0
    """Of them, those whose KV was here already."""
    alternatives: Alternatives = field(default_factory=list)
    queued_seconds: float = 0.0
    """From its arrival to when it held pages."""


Event = Reserved | Output | Finished | Broken | RemoteAbandoned | PagesComputed | PrefillDone
