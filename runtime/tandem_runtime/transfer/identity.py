"""Who a pod is on the kv port, and how chain hashes are keyed."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec

from tandem_runtime.contracts import hashing
from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.contracts.framing import MAX_PAYLOAD_BYTES
from tandem_runtime.contracts.token_file import TokenSource
from tandem_runtime.engine.client import EngineClient
from tandem_runtime.transfer.limits import DEFAULT_LIMITS, HandoffLimits

PREFILL_ROLES: Final = ("prefill", "both")


@dataclass(frozen=True, slots=True)
class KvSettings:
    """How a pod takes part in the hand-off."""

    limits: HandoffLimits = DEFAULT_LIMITS
    shared_memory: Path | None = None
    peers: tuple[str, ...] = ()
    """HOST:PORT of prefill pods that a decode pod tries before there is a request; a name stands for all of its
    addresses. A prefill pod keeps them for the day when it becomes a decode pod."""


@dataclass(frozen=True, slots=True)
class KvIdentity:
    """One side of the hand-off. `incarnation` changes with every start of the process, and with every role."""

    facts: kv.Hello
    """All of the hello but the token."""
    engine: EngineClient
    token: TokenSource
    limits: HandoffLimits = DEFAULT_LIMITS
    shared_memory: Path | None = None
    """Folder in which pods of one host share memory; None: TCP only."""

    @property
    def hello(self) -> kv.Hello:
        """With the token of this moment: take it once for each connection."""
        return msgspec.structs.replace(self.facts, token=self.token())

    @property
    def incarnation(self) -> str:
        """Fence of everything that this pod granted."""
        return self.facts.incarnation

    @property
    def computes_for_others(self) -> bool:
        """Its kv port takes prompts."""
        return self.facts.role in PREFILL_ROLES

    @property
    def layout(self) -> kv.Layout:
        """Of this pod's pages."""
        return self.facts.layout

    def reject(self, reason: str, peer: kv.Hello) -> kv.Reject:
        """Both hashes, so that a person can see which side is the odd one."""
        return kv.Reject(reason, self.facts.compat_hash, peer.compat_hash)

    def pulse(self) -> tuple[str, int, int]:
        """Incarnation, free pages, queued tokens: what Ping and Pong say."""
        state = self.engine.engine.state
        return self.incarnation, state.total_pages - state.used_pages, state.waiting_tokens


def make_identity(
    engine: EngineClient, role: str, pod: str, revision: str, incarnation: str, token: TokenSource, settings: KvSettings
) -> KvIdentity:
    """After the engine has loaded."""
    capacity = engine.capacity
    facts = kv.Hello(
        proto=kv.PROTO,
        compat_hash=capacity.compat_hash,
        incarnation=incarnation,
        role=role,
        pod=pod,
        revision=revision,
        token="",
        layout=capacity.layout,
        max_frame_bytes=MAX_PAYLOAD_BYTES,
        features=["nack", "probe"],
        quantization=capacity.quantization,
    )
    return KvIdentity(facts, engine, token, settings.limits, settings.shared_memory)


def describe(rejection: kv.Reject) -> str:
    """One line for people, from the point of view of the pod that rejects."""
    hashes = f"own compat hash {rejection.own_compat_hash}, the peer's {rejection.peer_compat_hash}"
    return f"{rejection.reason}; {hashes}"


def chain_hash(tokens: Sequence[int], token: str, salt: bytes) -> bytes:
    """Head of the hash chain over `tokens`, the last block closed however short it is: KV of other tokens never passes.
    Keyed by the `token` that both pods have said on their connection: after a change of the deployment's token they
    may have different files, but not here."""
    hashes = hashing.chain(tokens, token.encode(), salt)
    head = hashes[-1] if hashes else salt
    tail = array("I", tokens[len(hashes) * hashing.BLOCK_TOKENS :]).tobytes()
    return blake2b(head + tail, digest_size=hashing.DIGEST_BYTES, key=token.encode()[:64]).digest()
