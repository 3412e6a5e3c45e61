"""One request whose KV comes from another pod: what was granted, what has arrived, what fits. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field

from tandem_runtime.contracts import kv_protocol as kv
from tandem_runtime.contracts.framing import FrameError
from tandem_runtime.contracts.pod_protocol import PrefillPeer
from tandem_runtime.transfer.identity import chain_hash


@dataclass(slots=True, eq=False)
class Inbound:
    """`pages`: (page, generation) granted, in order of the sequence."""

    handle: int
    request: kv.Prefill
    peer: PrefillPeer
    pages: list[tuple[int, int]]
    ordinals: dict[int, int] = field(default_factory=dict)
    arrived: dict[int, set[int]] = field(default_factory=dict)
    """Ordinal -> layers that are here."""
    frames: int = 0
    received_bytes: int = 0
    ready: bool = False

    def __post_init__(self) -> None:
        self.ordinals = {page: ordinal for ordinal, (page, _) in enumerate(self.pages)}

    @property
    def key(self) -> tuple[str, int]:
        """As messages name it."""
        return self.request.req, self.request.attempt

    def place(self, frame: kv.Frame, incarnation: str) -> int | None:
        """Number of the page in the sequence; None when the frame is not for what is granted now."""
        ordinal = self.ordinals.get(frame.page)
        if ordinal is None or ordinal >= len(self.pages) or frame.incarnation != incarnation:
            return None
        return ordinal if self.pages[ordinal] == (frame.page, frame.generation) else None

    def count(self, frame: kv.Frame, ordinal: int) -> None:
        """The frame's payload is here and right."""
        self.frames += 1
        self.received_bytes += frame.len
        self.arrived.setdefault(ordinal, set()).update(range(frame.layer_first, frame.layer_end))

    def incomplete(self, message: kv.Commit, layer_count: int, token: str) -> str:
        """What is missing or wrong; empty when all layers of all pages are here, and are of these tokens. `token` is
        that of the connection."""
        layers = set(range(layer_count))
        tokens = self.request.tokens
        missing = [ordinal for ordinal in range(len(self.pages)) if self.arrived.get(ordinal) != layers]
        if missing or message.frames_sent != self.frames:
            return f"{self.frames} of {message.frames_sent} frames came, pages {missing[:8]} are not complete"
        if message.n_tokens != len(tokens):
            return f"KV of {message.n_tokens} tokens came for {len(tokens)}"
        if message.chain_hash != chain_hash(tokens, token, self.request.salt):
            return "the KV is of other tokens (chain hash differs)"
        return ""


def check_shape(frame: kv.Frame, layout: kv.Layout) -> None:
    """Raises FrameError when the frame's layers or length are not of this layout."""
    layers = frame.layer_end - frame.layer_first
    if not 0 <= frame.layer_first < frame.layer_end <= layout.layers:
        raise FrameError(f"layers {frame.layer_first} to {frame.layer_end} of a model with {layout.layers}")
    if frame.len * layout.layers != layout.page_bytes * layers:
        raise FrameError(f"{frame.len} bytes for {layers} of {layout.layers} layers of {layout.page_bytes} bytes")
