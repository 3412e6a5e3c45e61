"""Which decode pod serves a request and which prefill pod computes its prompt: the pair with the least predicted
time to the first token, or with the least work where pods did not tell what they can do. Never across revisions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tandem_runtime.policy.fleet import Fleet
from tandem_runtime.policy.pods import HEADROOM_TOKENS, PodSnapshot
from tandem_runtime.policy.waiting import Waiting

NOTHING_CACHED: Mapping[str, int] = {}
Way = Literal["remote", "both", "short", "no_prefill", "converted"]
"""How the prompt gets computed: by a prefill pod, or by the decode pod, and then why."""
HoldReason = Literal["no_pod", "no_slot", "no_room", "avoided", "prefill_busy", "too_large"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Where a request goes. Without `prefill` the decode pod computes the prompt."""

    decode: PodSnapshot
    prefill: PodSnapshot | None
    way: Way = "remote"
    cached_tokens: int = 0
    """That the pod which computes the prompt is expected to hold."""
    first_token_seconds: float = 0.0
    """Predicted from now on; 0 when nobody knows."""
    step_seconds: float = 0.0
    """Predicted between two tokens."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Why it goes nowhere yet. no_room: smaller ones may. no_slot, no_pod: none may. prefill_busy: none that needs a
    prefill pod. `too_large`: it never will, the largest pod holds `largest_tokens`."""

    reason: HoldReason
    largest_tokens: int = 0
    need_tokens: int = 0


def choose(
    fleet: Fleet, entry: Waiting, now: float, cached: Mapping[str, int] = NOTHING_CACHED, behind: bool = False
) -> Pair | Hold:
    """`cached`: by incarnation, how many of the prompt's tokens a pod is expected to hold. `behind`: more waits than
    prefill pods can serve in time."""
    decode = choose_decode(fleet, entry, now, cached)
    if isinstance(decode, Hold):
        return decode
    at_decode = min(cached.get(decode.incarnation, 0), entry.tokens - 1) if cached else 0
    if decode.role == "both":
        return _local(decode, entry, at_decode, "both")
    if entry.tokens - at_decode <= fleet.law.short_tokens:
        return _local(decode, entry, at_decode, "short")
    found = choose_prefill(fleet, entry, decode, now, cached)
    if found is None and not fleet.could_prefill(decode.revision, entry, now):
        return _local(decode, entry, at_decode, "no_prefill")
    if found is None:
        return _convert(fleet, entry, now, cached, behind) or Hold("prefill_busy")
    prefill, at_prefill, seconds = found
    if entry.streaming or fleet.law.takes_more(prefill, now):
        seconds += decode.step_seconds(1, entry.tokens)
        return Pair(decode, prefill, "remote", at_prefill, seconds, decode.step_seconds(1, entry.tokens))
    return _convert(fleet, entry, now, cached, behind) or Hold("prefill_busy")


def choose_decode(fleet: Fleet, entry: Waiting, now: float, cached: Mapping[str, int]) -> PodSnapshot | Hold:
    """The least loaded pod that takes it (or, when the law packs, the most loaded), by predicted step."""
    if not fleet.decodes:
        return Hold("no_pod")
    least_tokens = entry.tokens + HEADROOM_TOKENS
    if fleet.largest_tokens < least_tokens:
        return Hold("too_large", int(fleet.largest_tokens))
    need_tokens = least_tokens + entry.output_tokens
    avoid = entry.avoided(now) if entry.avoid else entry.avoid
    limit = fleet.tpot_limit(entry)
    for incarnation in sorted(cached, key=lambda name: (-cached[name], name)) if cached else ():
        pod = fleet.pods.get(incarnation)
        if pod is not None and pod.role != "prefill" and cached[incarnation] >= fleet.law.affinity_tokens:
            fits = fleet.admits(pod, entry, need_tokens, limit) == ""
            if fits and pod.serves() and incarnation not in avoid:
                return pod
    refusals: set[str] = set()
    for pod in fleet.decode_order():
        refusal: str = fleet.admits(pod, entry, need_tokens, limit)
        if not refusal and pod.incarnation in avoid:
            refusal = "avoided"
        if not refusal:
            return pod
        refusals.add(refusal)
        if refusal == "slow" and not fleet.law.packs:
            break  # the others are slower
    if "avoided" in refusals:
        return Hold("avoided")
    return Hold("no_room", need_tokens=need_tokens) if "no_room" in refusals else Hold("no_slot")


def choose_prefill(
    fleet: Fleet, entry: Waiting, decode: PodSnapshot, now: float, cached: Mapping[str, int]
) -> tuple[PodSnapshot, int, float] | None:
    """The prefill pod that is first done with this prompt, its cached tokens, and the seconds until its KV is there.

    None when no prefill pod of the revision has room for it.
    """
    avoid = entry.avoided(now) if entry.avoid else entry.avoid
    best: tuple[PodSnapshot, int, float] | None = None
    best_key: tuple[float, int, int, str] | None = None
    link_seconds = decode.link_seconds(entry.tokens)
    for pod in fleet.prefill_candidates(decode.revision, entry.tokens, avoid, cached):
        at_pod = min(cached.get(pod.incarnation, 0), entry.tokens - 1) if cached else 0
        wait_seconds = max(0.0, (pod.busy_until or 0.0) - now)
        seconds = wait_seconds + pod.prompt_seconds(entry.tokens, at_pod) + link_seconds
        key = (seconds, pod.waiting_tokens - at_pod, pod.running, pod.pod)
        if best_key is None or key < best_key:
            best, best_key = (pod, at_pod, seconds), key
    return best


def _local(decode: PodSnapshot, entry: Waiting, cached_tokens: int, way: Way) -> Pair:
    step_seconds = decode.step_seconds(1, entry.tokens)
    seconds = decode.prompt_seconds(decode.waiting_tokens + entry.tokens, cached_tokens) + step_seconds
    return Pair(decode, None, way, cached_tokens, seconds, step_seconds)


def _convert(fleet: Fleet, entry: Waiting, now: float, cached: Mapping[str, int], behind: bool) -> Pair | None:
    """A decode pod whose running requests keep their TPOT while it computes the prompt chunk by chunk.

    Only when waiting has used up its share of the objective, or others had to step back for want of prefill pods:
    else these are not the bottleneck.
    """
    law = fleet.law
    if not law.convertible or (now < law.convert_at(entry) and not behind):
        return None
    late = entry.late_at <= now
    avoid = entry.avoided(now) if entry.avoid else entry.avoid
    limit = fleet.tpot_limit(entry)
    for pod in fleet.decodes[: law.convert_candidates]:
        known = pod.coefficients
        step_tokens = pod.step_tokens or law.convert_tokens
        if known is None or pod.waiting_tokens > step_tokens or pod.incarnation in avoid:
            continue
        need_tokens = entry.tokens + HEADROOM_TOKENS + entry.output_tokens
        if fleet.admits(pod, entry, need_tokens, limit):
            continue
        if late and not entry.streaming and not law.spares(pod, need_tokens):
            continue
        at_pod = min(cached.get(pod.incarnation, 0), entry.tokens - 1) if cached else 0
        rest = entry.tokens - at_pod
        chunk = min(rest, step_tokens)
        steps = (pod.waiting_tokens + rest) / step_tokens
        chunk_seconds = known.prefill_seconds(chunk, max(0, at_pod + (rest - chunk) // 2)) - known.prefill.theta0_s
        step_seconds = pod.step_seconds(1, entry.tokens) + chunk_seconds
        seconds = max(1.0, steps) * step_seconds
        if step_seconds <= limit and (late or now + seconds <= entry.objective_at):
            return Pair(pod, None, "converted", at_pod, seconds, pod.step_seconds(1, entry.tokens))
    return None
