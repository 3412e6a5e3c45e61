"""Settings of the router, each with its default and its reason."""

from __future__ import annotations

from dataclasses import dataclass, field

from tandem_runtime.contracts.pod_protocol import HEARTBEAT_SECONDS, MISSED_HEARTBEATS
from tandem_runtime.contracts.token_file import TokenSource
from tandem_runtime.policy.fleet import ChoiceLaw
from tandem_runtime.policy.waiting import QueueLaw, QueueLimits


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """Connections to pods."""

    heartbeat_seconds: float = HEARTBEAT_SECONDS
    missed_heartbeats: int = MISSED_HEARTBEATS
    """2.1 s of silence: a frozen pod or a cut network is noticed within 3 s, a busy one is not given up."""
    checks_per_heartbeat: int = 4
    """Silence is looked at that often, so that the 2.1 s do not become 2.8 s."""
    connect_timeout_seconds: float = 3.0
    """Connect and hello; a pod that is there answers in milliseconds."""
    first_backoff_seconds: float = 0.1
    max_backoff_seconds: float = 1.0
    """A pod that comes up is used within that time."""
    refused_backoff_seconds: float = 5.0
    """Of a pod that will not talk to this router (token, revision): only a change of one of them helps."""


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """Identity and laws of one router."""

    revision: str
    token: TokenSource
    router_id: str
    incarnation: str
    max_context_tokens: int | None = None
    """What prompt and answer may take; pods may allow less."""
    limits: QueueLimits = field(default_factory=QueueLimits)
    queue: QueueLaw = field(default_factory=QueueLaw)
    choice: ChoiceLaw = field(default_factory=ChoiceLaw)
    links: LinkSettings = field(default_factory=LinkSettings)
    max_attempts: int = 5
    """Failures that one request may outlive; a request that kills every pod must not go round for ever."""
    retry_pause_seconds: float = 0.5
    """Before a request goes to a pod that just failed it, when no other is there."""
    lanes: bool = True
    """Compiled code writes plain chunks, where it can be had; False: Python writes all."""
    watch_seconds: float = 1.0
    """Between looks at the endpoint file and at DNS."""
