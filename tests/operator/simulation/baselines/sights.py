"""Observations made by hand, as a scraper of a small fleet would have them."""

from __future__ import annotations

from tandem_operator.scaling.observation import (
    ClassCounters,
    Iteration,
    Observation,
    Pod,
    PodSignals,
    QueueNow,
    Role,
    RouterSignals,
)
from tandem_operator.scaling.settings import PoolSettings, Settings
from tandem_runtime.contracts.coefficients import Coefficients, Decode, Link, Prefill

COEFFICIENTS = Coefficients(
    schema=1,
    prefill=Prefill(0.005, 6e-5, 0.0),
    decode=Decode(0.010, 1e-4, 1e-7),
    link=Link(0.001, 5e10),
    kv_bytes_per_token=163840,
    kv_tokens=600_000,
    max_sequences=256,
    load_s=75.0,
)
SETTINGS = Settings(
    prefill=PoolSettings(coefficients=COEFFICIENTS, gpus=4), decode=PoolSettings(coefficients=COEFFICIENTS, gpus=4)
)


def pod(name: str, role: Role, now: float, *, ready: bool = True, silent: bool = False, **told: int) -> Pod:
    """One pod; `told` are fields of its signals."""
    steps = tuple(
        Iteration(0, 0, 512 * (1 + index % 4), 0.005 + 6e-5 * 512 * (1 + index % 4))
        if role == "prefill"
        else Iteration(
            10 + index, 9000 * (1 + index % 3), 0, 0.010 + 1e-4 * (10 + index) + 1e-7 * 9000 * (1 + index % 3)
        )
        for index in range(8)
    )
    signals = PodSignals(
        at=now,
        incarnation=name,
        kv_total_tokens=600_000,
        max_sequences=256,
        iterations=steps,
        iterations_total=8,
        **told,
    )
    return Pod(
        name=name,
        role=role,
        created=0.0,
        scheduled=0.0,
        ready_since=1.0 if ready else None,
        signals=None if silent or not ready else signals,
    )


def sight(
    now: float,
    *,
    per_s: float = 0.0,
    queue: int = 0,
    prefill: int = 2,
    decode: int = 2,
    kv: int = 60_000,
    running: int = 20,
    silent: bool = False,
) -> Observation:
    """A fleet that has had `per_s` requests of 1000/200 tokens per second since time 0."""
    served = int(per_s * now)
    told = ClassCounters(
        arrivals=served, prompt_tokens=1000 * served, completed=served, output_tokens=200 * served, met=served
    )
    each = int(1000 * per_s * now / max(prefill, 1))
    pods = [pod(f"p{index}", "prefill", now, silent=silent, prompt_tokens=each, running=1) for index in range(prefill)]
    pods += [
        pod(f"d{index}", "decode", now, silent=silent, kv_used_tokens=kv, running=running, output_tokens=served)
        for index in range(decode)
    ]
    router = RouterSignals(
        router="r",
        incarnation="1",
        at=now,
        classes={"interactive": told},
        queue=QueueNow(requests=queue, tokens=1000 * queue),
    )
    return Observation(routers=() if silent else (router,), pods=tuple(pods), pods_at=now)
