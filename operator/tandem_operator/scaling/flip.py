"""Pods that change their role in place: what one pool lacks and the other has to spare, without a start-up.

Targets that move against each other at once say it; who carries them out turns the pods that are let go.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from tandem_operator.scaling.couple import bounds
from tandem_operator.scaling.decision import Targets
from tandem_operator.scaling.observation import Role
from tandem_operator.scaling.settings import Settings
from tandem_operator.scaling.state import PoolMemory, State


class Flip(NamedTuple):
    """Sizes with what changes its role taken from the giver."""

    sizes: Targets
    state: State
    reason: str = ""


def flip(
    settings: Settings,
    state: State,
    have: Targets,
    sizes: Targets,
    low: Targets,
    blind: tuple[bool, bool],
    now: float,
    urgent: Targets | None = None,
) -> Flip:
    """`sizes`: after growth and removals; `low`: what each pool may shrink to, by the model; `blind`: prefill, decode.
    `urgent`: pods that serve, when requests miss their objective now: then pods that start are no help yet.

    A giver needs no hold, as what it gives comes back as fast; but whoever was given to keeps it for a while.
    """
    nothing = Flip(sizes, state)
    pools = (settings.prefill, settings.decode)
    if not settings.role_flip or pools[0].gpus != pools[1].gpus or any(pool.replicas is not None for pool in pools):
        return nothing
    roles: tuple[Role, Role] = ("prefill", "decode")
    after, least = _pair(sizes), _pair(low)
    had = _pair(urgent or have)
    for taker, giver in ((0, 1), (1, 0)):
        dwells = now - state.flipped_at < settings.law.dwell_s
        comes = state.flipped_size if urgent and dwells and state.flipped_to == roles[taker] else 0
        holds = max(had[taker], comes)
        lacks = after[taker] - holds
        stays = had[giver] if urgent else min(had[giver], after[giver])
        spare = stays - max(least[giver], bounds(pools[giver])[0])
        settled = state.flipped_to != roles[giver] or not dwells
        grows = not urgent and after[giver] > had[giver]
        if lacks <= 0 or spare <= 0 or blind[giver] or grows or not settled:
            continue
        moved = min(lacks, spare)
        left = stays - moved
        memory = _restarted(state.prefill if giver == 0 else state.decode, left, now)
        state = msgspec.structs.replace(
            state,
            prefill=memory if giver == 0 else state.prefill,
            decode=memory if giver == 1 else state.decode,
            flipped_to=roles[taker],
            flipped_at=now,
            flipped_size=holds + moved,
        )
        grown = Targets(after[0], left) if giver == 1 else Targets(left, after[1])
        return Flip(grown, state, f"{moved} of {roles[giver]} become {roles[taker]} in place")
    return nothing


def _pair(targets: Targets) -> tuple[int, int]:
    return targets.prefill, targets.decode


def _restarted(memory: PoolMemory, size: int, now: float) -> PoolMemory:
    """What was needed before says nothing of the pool that is left."""
    return msgspec.structs.replace(memory, peaks=((now, size),), peaks_far=((now, size),))
