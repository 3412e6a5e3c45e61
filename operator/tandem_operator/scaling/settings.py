"""What the user asked of the autoscaler, as plain values. The law's own constants stand in `law.py`."""

from __future__ import annotations

from typing import Literal

import msgspec
from tandem_runtime.contracts.coefficients import Coefficients

from tandem_operator.scaling.law import Law


class Objective(msgspec.Struct, frozen=True, kw_only=True):
    """One SLO class. A prompt of n tokens must have its first token within ttft_base_s + n per_thousand / 1000."""

    name: str = "interactive"
    ttft_base_s: float = 2.0
    ttft_per_thousand_tokens_s: float = 0.0
    tpot_s: float = 0.05
    attainment: float = 0.99
    """Share of requests that must be met, 0 to 1."""
    priority: int = 0


class PoolSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One pool. `replicas` set: its size is the user's and is never changed."""

    coefficients: Coefficients
    """Of one replica: the prior that calibration starts from."""
    replicas: int | None = None
    min_replicas: int = 1
    max_replicas: int = 64
    gpus: int = 1
    """Per replica."""
    price_per_hour: float = 1.0
    """Of a replica, any currency: only ratios count."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one deployment. The first objective is the default class."""

    prefill: PoolSettings
    decode: PoolSettings
    objectives: tuple[Objective, ...] = (Objective(),)
    mode: Literal["Active", "Advisory", "Frozen"] = "Active"
    """Advisory: targets are computed and told, pools stay. Frozen: nothing is computed but the explanation why."""
    budget_gpus: int | None = None
    """Both pools together."""
    scale_to_zero: bool = False
    idle_after_s: float = 600.0
    min_ratio: float | None = None
    """Bounds of prefill replicas per decode replica; None: the law is free."""
    max_ratio: float | None = None
    convertible_decode: bool = True
    """Routers let decode pods with slack compute prompts when the prefill pool is behind."""
    role_flip: bool = False
    """Whoever carries the targets out turns pods that are let go into pods of the other role, by their `POST /role`.
    The simulator does; the operator does not set this yet."""
    sheds_late: bool = False
    """Routers refuse requests whose deadline has passed; late backlog then needs no replicas."""
    law: Law = Law()
    """The law's own constants; they are here so that a record holds them and an ablation can change one."""
