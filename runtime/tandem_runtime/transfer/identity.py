"""Who a pod is on the kv port, and how its chain hashes are keyed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tandem_runtime.contracts import hashing
from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.contracts.framing import MAX_PAYLOAD_BYTES
from tandem_runtime.engine.client import EngineClient


@dataclass(frozen=True, slots=True)
class KvIdentity:
    """One side of the hand-off. `incarnation` changes with every start of the process."""

    hello: kv.Hello
    engine: EngineClient

    @property
    def incarnation(self) -> str:
        """Fence of everything that this pod granted."""
        return self.hello.incarnation

    def chain_hash(self, tokens: Sequence[int], salt: bytes) -> bytes:
        """Head of the hash chain over `tokens`; empty below one block. Keyed by the deployment's token."""
        hashes = hashing.chain(tokens, self.hello.token.encode(), salt)
        return hashes[-1] if hashes else b""

    def reject(self, reason: str, peer: kv.Hello) -> kv.Reject:
        """Both hashes, so that a person can see which side is the odd one."""
        return kv.Reject(reason, self.hello.compat_hash, peer.compat_hash)

    def pulse(self) -> tuple[str, int, int]:
        """Incarnation, free pages, queued tokens: what Ping and Pong say."""
        state = self.engine.engine.state
        return self.incarnation, state.total_pages - state.used_pages, state.waiting_tokens


def make_identity(engine: EngineClient, role: str, pod: str, incarnation: str, token: str) -> KvIdentity:
    """After the engine has loaded."""
    capacity = engine.capacity
    hello = kv.Hello(
        proto=kv.PROTO,
        compat_hash=capacity.compat_hash,
        incarnation=incarnation,
        role=role,
        pod=pod,
        token=token,
        layout=capacity.layout,
        max_frame_bytes=MAX_PAYLOAD_BYTES,
    )
    return KvIdentity(hello, engine)
