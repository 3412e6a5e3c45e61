"""Router to engine pod, internal port: one multiplexed connection, frames of `framing`, no payloads.

The router speaks first (RouterHello), the pod answers PodHello or Refused. Text stays outside the engine:
prompts come as token ids; replies carry ids and text, so that a stream can go on from another pod.
What one engine step brought for all requests of a router leaves as one Step: one frame, one write, one read.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from tandem_runtime.contracts.coefficients import Coefficients
from tandem_runtime.contracts.sampling import Alternatives, Sampling

VERSION: Final = 2
HEARTBEAT_SECONDS: Final = 0.7
MISSED_HEARTBEATS: Final = 3
"""Three misses and the other side is lost."""
KV_HEADROOM_TOKENS: Final = 32
"""A pod reserves the prompt, what was emitted and one page more before it takes a request."""


class RouterHello(msgspec.Struct, frozen=True, tag="router_hello"):
    """First message of a connection. A wrong token, version or revision is answered with Refused."""

    version: int
    router_id: str
    incarnation: str
    token: str
    revision: str


class PrefillPeer(msgspec.Struct, frozen=True):
    """Where the decode pod asks for the prompt's KV: kv port of a prefill pod and the incarnation it must still be."""

    pod: str
    address: str
    kv_port: int
    incarnation: str


class Submit(msgspec.Struct, frozen=True, tag="submit"):
    """One request. `emitted_ids` were already sent to the client: decoding goes on after them.

    `remaining_ms` counts down to the request timeout; it is never a wall-clock time.
    """

    id: str
    attempt: int
    prompt_ids: list[int]
    sampling: Sampling
    remaining_ms: int
    emitted_ids: list[int] = []
    stop: list[str] = []
    request_class: str = ""
    prefill_peer: PrefillPeer | None = None
    tenant_salt: bytes = b""
    want_logprobs: int = 0
    """0: none; 1 + n: of each token, and of the n likeliest at its place (sampling.logprobs is n)."""
    spent_ms: int = 0
    """Since the request was fully read: objectives count from there."""
    priority: int = 0
    objective_ms: int | None = None
    """Until the first token of this attempt should be there; late is no error. None: nothing is promised."""
    tpot_ms: float | None = None
    """Promised for each further token."""
    traceparent: str = ""
    """W3C trace context of the request, its span that of the router; empty without one."""

    def kv_tokens(self) -> int:
        """KV that has to be free when it comes."""
        return len(self.prompt_ids) + len(self.emitted_ids) + KV_HEADROOM_TOKENS


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Idempotent; an unknown id is ignored."""

    id: str
    attempt: int


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    """From the router at every heartbeat, and when its queue has changed much. Says what it holds back, by which pods
    share their credits between routers."""

    requests: int = 0
    tokens: int = 0
    next_tokens: int = 0
    """KV that the next one needs."""


class PodHello(msgspec.Struct, frozen=True, tag="pod_hello"):
    """Who answers; said again when the pod knows its coefficients better. `incarnation` changes with every start of
    the process and with every role: a connection has one of each to its end. What is 0 or None is not known."""

    version: int
    pod: str
    role: str
    revision: str
    incarnation: str
    address: str
    kv_port: int
    model_name: str
    max_context_tokens: int
    compat_hash: str
    max_sequences: int = 0
    step_tokens: int = 0
    """Prompt tokens that one step takes at most."""
    coefficients: Coefficients | None = None
    keeps_prefixes: bool = False
    """Computed prompts stay for later requests that begin alike."""
    flipped_from: str = ""
    """The role that it had before, in the same process; empty when it began as what it is."""
    flip_seconds: float = 0.0
    """From the order to change until it was ready; until now while it is not."""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The pod will not talk to this router; the connection is closed after it."""

    reason: str


class PodState(msgspec.Struct, frozen=True, tag="pod_state"):
    """Sent after the hello, on every change of `ready` or `draining`, and at least every 0.5 s."""

    incarnation: str
    ready: bool
    draining: bool
    running: int
    waiting: int
    waiting_tokens: int
    kv_used_tokens: int
    kv_total_tokens: int
    routers: int = 0
    """That are connected to the pod now; 0: it does not say. Limits of API keys are shared by so many."""
    kv_link: str = ""
    """Transports of its KV links that stand: tcp, shm or both; empty when there is none."""
    becoming: str = ""
    """The role that it takes once it is drained, under another incarnation; empty when it drains to end."""


class Credits(msgspec.Struct, frozen=True, tag="credits"):
    """A lease to send that much more than was `received`; replaces the one before. Summed over routers it never exceeds
    capacity; a request beyond it is turned away (queue_full)."""

    incarnation: str
    slots: int
    kv_tokens: int
    queue_tokens: int
    ttl_ms: int
    received: int | None = None
    """Submits of this connection that the pod had counted; what the router sent after them is on its way and uses the
    lease too. None: it does not say."""


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one request as this pod saw it. `prefilled_here` is how many prompt tokens this pod computed itself;
    0 when all pages came from a prefill pod."""

    prompt_tokens: int
    output_tokens: int
    prefilled_here: int
    kv_bytes_received: int
    cached_tokens: int = 0
    """Of the prompt, those whose KV was there before the request came."""


class Delta(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """New output tokens from `output_index` on. `text` may lag behind `ids` while a UTF-8 character is incomplete.

    `finish_reason` is set on the last message of a request: stop, length, or cancelled. An array on the wire, since
    there are tens of thousands a second: new fields go to the end.
    """

    id: str
    attempt: int
    output_index: int
    ids: list[int]
    text: str
    finish_reason: str | None = None
    usage: Usage | None = None
    logprobs: list[float] | None = None
    alternatives: list[Alternatives] | None = None
    """By token of `ids`: the likeliest at its place."""


class Step(msgspec.Struct, frozen=True, tag="step"):
    """New tokens of many requests of one router, each in order."""

    deltas: list[Delta]


class Reason(StrEnum):
    """Why a pod ended a request without a result; what Failed says. Routers add reasons of their own."""

    INVALID = "invalid_request"
    CONTEXT_LENGTH = "context_length_exceeded"
    OVERLOADED = "queue_full"
    DRAINING = "draining"
    DUPLICATE = "duplicate"
    TIMEOUT = "timeout"
    WRONG_ROLE = "wrong_role"
    KV_CORRUPT = "kv_corrupt"
    ENGINE_ERROR = "engine_error"


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The request ended here without a result. `retryable`: another pod may well serve it."""

    id: str
    attempt: int
    reason: str
    message: str
    retryable: bool
    retry_after_seconds: int | None = None
    """When trying again may help; None: the reason's own default."""


class Pong(msgspec.Struct, frozen=True, tag="pong"):
    """Answer to Ping."""

    incarnation: str


FromRouter = RouterHello | Submit | Cancel | Ping
FromPod = PodHello | Refused | PodState | Credits | Step | Failed | Pong

encode = msgspec.msgpack.Encoder().encode
decode_from_router = msgspec.msgpack.Decoder(FromRouter).decode
decode_from_pod = msgspec.msgpack.Decoder(FromPod).decode
