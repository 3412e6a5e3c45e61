"""Prefill pod (P) to decode pod (D), kv port: D connects and owns the request, P pushes pages while it computes.

A frame is fenced by (D's incarnation, attempt, page generation). Only FRAME carries a payload; its header is
checked before the payload is received, and its checksum before the page is used.
"""

from __future__ import annotations

from typing import Final

import msgspec

from tandem_runtime.contracts.framing import FrameError
from tandem_runtime.contracts.sampling import Alternatives, Sampling

PROTO: Final = 1
HEARTBEAT_SECONDS: Final = 0.7
MISSED_HEARTBEATS: Final = 3
"""Three misses and the peer is lost: all its requests fail over."""


class Layout(msgspec.Struct, frozen=True):
    """Shape of one page on the wire: [layers, 2 (K, V), kv_heads, page_tokens, head_dim] of `dtype`, contiguous; where
    that is int8, each [page_tokens, head_dim] is followed by the float32 scales [page_tokens] of its rows."""

    layers: int
    kv_heads: int
    head_dim: int
    page_tokens: int
    dtype: str
    page_bytes: int
    """Bytes that one page takes on the wire; smaller than the shape says when an emulated pod scales it down."""


class Ring(msgspec.Struct, frozen=True):
    """Memory that D offers for payloads: a file `name` of `size_bytes` in the folder that both sides may share."""

    name: str
    size_bytes: int


class Hello(msgspec.Struct, frozen=True, tag="HELLO"):
    """First message of both sides. A different compat_hash or layout is answered with Reject."""

    proto: int
    compat_hash: str
    incarnation: str
    role: str
    pod: str
    token: str
    layout: Layout
    max_frame_bytes: int
    tp: int = 1
    features: list[str] = []
    revision: str = ""
    ring: Ring | None = None
    """D only: where payloads may go if P sees the same memory."""
    quantization: str = "none"
    """Of the weights; in compat_hash too, here so that a refusal can name it."""
    ring_proof: bytes = b""
    """P only: what D wrote into the ring; the two are on one host and P will use it. Empty: payloads come inline."""


class Reject(msgspec.Struct, frozen=True, tag="REJECT"):
    """Both ways; the connection is closed after it."""

    reason: str
    own_compat_hash: str
    peer_compat_hash: str


class Prefill(msgspec.Struct, frozen=True, tag="PREFILL"):
    """D asks for the KV of `tokens` and the first output token; it holds the first `have_pages` pages already.

    `output_index` is the index of the token to sample (not 0 when a stream is resumed).
    """

    req: str
    attempt: int
    tokens: list[int]
    sampling: Sampling
    output_index: int
    remaining_ms: int
    have_pages: int = 0
    salt: bytes = b""
    prompt_tokens: int = 0
    """How many of `tokens` are the client's prompt; the rest were emitted before a resume."""
    priority: int = 0
    objective_ms: int | None = None
    """Until the first token should be there: orders P's queue, late is no error. None: nothing is promised."""
    traceparent: str = ""
    """W3C trace context of the request; empty without one."""


class Busy(msgspec.Struct, frozen=True, tag="BUSY"):
    """P cannot take it now; D tries another P or prefills itself."""

    req: str
    attempt: int
    retry_ms: int


class Ready(msgspec.Struct, frozen=True, tag="READY"):
    """P has taken the work and will send `n_pages` pages."""

    req: str
    attempt: int
    n_pages: int


class Grant(msgspec.Struct, frozen=True, tag="GRANT"):
    """Where the next pages go, in order: (page, generation) of D. Pages granted are the credit of flow control.

    They come in portions: what P may send unasked is bounded, and D asks for more only while it keeps up.
    """

    req: str
    attempt: int
    pages: list[tuple[int, int]]
    first: int = -1
    """How many were granted before, so that a GRANT that comes twice is harmless; -1: not said."""


class Frame(msgspec.Struct, frozen=True, tag="FRAME"):
    """Layers [layer_first, layer_end) of one page. `incarnation` is D's, as said in its Hello. `crc32c` is over what
    the header says of the place, then over the payload."""

    req: str
    attempt: int
    incarnation: str
    layer_first: int
    layer_end: int
    page: int
    generation: int
    len: int
    crc32c: int


class Commit(msgspec.Struct, frozen=True, tag="COMMIT"):
    """All pages are sent. D checks that every page of every layer arrived before it decodes.

    Said again after pages were sent once more; `resent_pages` counts those, so that D knows that no more will come.
    """

    req: str
    attempt: int
    n_tokens: int
    first_token: int
    logprob: float
    chain_hash: bytes
    """Over the tokens and the first one that follows: a bit that flips here would be a wrong answer."""
    frames_sent: int
    resent_pages: int = 0
    alternatives: Alternatives = []
    """To the first token, where sampling.logprobs asks for them."""
    cached_tokens: int = 0
    """Of `n_tokens`, those whose KV P had already."""


class Nack(msgspec.Struct, frozen=True, tag="NACK"):
    """Pages whose checksum failed or that are missing; P sends them once more, then the attempt is given up."""

    req: str
    attempt: int
    pages: list[int]


class Ack(msgspec.Struct, frozen=True, tag="ACK"):
    """D has everything: P frees at once."""

    req: str
    attempt: int


class Abort(msgspec.Struct, frozen=True, tag="ABORT"):
    """Either side gives the attempt up; the other frees at once. Idempotent; an unknown id is ignored."""

    req: str
    attempt: int
    reason: str = ""


class Probe(msgspec.Struct, frozen=True, tag="PROBE"):
    """D asks for a test block of that size: does the link carry payloads, and how fast."""

    nonce: int
    block_bytes: int


class Block(msgspec.Struct, frozen=True, tag="BLOCK"):
    """P's answer, with a payload that belongs to no request."""

    nonce: int
    len: int
    crc32c: int


class Ping(msgspec.Struct, frozen=True, tag="PING"):
    """Every HEARTBEAT_SECONDS, both ways."""

    incarnation: str
    free_pages: int
    queue_tokens: int


class Pong(msgspec.Struct, frozen=True, tag="PONG"):
    """Answer to Ping."""

    incarnation: str
    free_pages: int
    queue_tokens: int


Message = (
    Hello | Reject | Prefill | Busy | Ready | Grant | Frame | Commit | Nack | Ack | Abort | Probe | Block | Ping | Pong
)

encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


def decode(control: bytes) -> Message:
    """Raises FrameError for whatever is not a message, deep nesting and broken UTF-8 included."""
    try:
        message: Message = _decode(control)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"not a message of this protocol: {error}") from error
    return message
