"""The replica, the objective and the bounds that every scenario shares, so that figures can be compared."""

from __future__ import annotations

from typing import Final

from tandem_runtime.contracts.coefficients import SCHEMA, Coefficients, Decode, Link, Prefill

from tandem_operator.scaling.settings import Objective, PoolSettings, Settings
from tandem_operator.simulation.scenario import Fleet, Startup

PARAMETERS: Final = 70.55e9
LAYERS: Final = 80
HIDDEN: Final = 8192
KV_BYTES: Final = 2 * LAYERS * 8 * 128 * 2
"""Keys and values, 8 heads of 128, 16 bit."""
DEVICES: Final = 4
FP8_FLOPS: Final = 1978.9e12
BF16_FLOPS: Final = 989.5e12
BANDWIDTH: Final = 3.35e12
MEMORY: Final = 80e9
COMPUTE_SHARE: Final = 0.56
"""Of the peak; fits of measured points lie between 0.52 and 0.61."""
BANDWIDTH_SHARE: Final = 0.8
STEP_OVERHEAD_S: Final = 5.5e-3
"""Fits: 5 to 6 ms."""
SEQUENCE_S: Final = 4.5e-5
"""Per sequence and step; fits: 0.03 to 0.06 ms."""
MEMORY_SHARE: Final = 0.9
ACTIVATIONS: Final = 4e9
"""Bytes per device."""
NETWORK: Final = 50e9
"""Bytes per second per device: one 400 Gb/s adapter each."""

LLAMA_70B_FP8_4XH100: Final = Coefficients(
    schema=SCHEMA,
    prefill=Prefill(
        theta0_s=STEP_OVERHEAD_S,
        theta1_s=2 * PARAMETERS / (DEVICES * FP8_FLOPS * COMPUTE_SHARE),
        theta2_s=4 * LAYERS * HIDDEN / (DEVICES * BF16_FLOPS * COMPUTE_SHARE),
    ),
    decode=Decode(
        phi0_s=STEP_OVERHEAD_S + PARAMETERS / (DEVICES * BANDWIDTH * BANDWIDTH_SHARE),
        phi1_s=SEQUENCE_S,
        phi2_s=KV_BYTES / (DEVICES * BANDWIDTH * BANDWIDTH_SHARE),
    ),
    link=Link(setup_s=0.002, bytes_per_s=DEVICES * NETWORK),
    kv_bytes_per_token=KV_BYTES,
    kv_tokens=int((DEVICES * (MEMORY * MEMORY_SHARE - ACTIVATIONS) - PARAMETERS) / KV_BYTES),
    max_sequences=256,
    load_s=110.0,
)
"""Llama-3.1-70B in FP8 on four H100 SXM, from published facts and the constants that fit measured points."""

TTFT_S: Final = 2.0
TTFT_SOLO_FACTOR: Final = 1.5
TPOT_S: Final = 0.05
MAX_REPLICAS: Final = 64
FLIP_S: Final = 5.0
"""A drained pod takes the other role: same process, same weights, a new incarnation. The runtime takes 0.1 to 0.4 s
(tests/processes/test_flip.py); the rest is for whoever tells it to, and for larger fleets."""
COLD: Final = Startup()
"""Median 110 s."""
WARM: Final = Startup(node_s=0.0, image_s=5.0, weights_s=20.0, warmup_s=5.0, warmth="warm")
"""Median 30 s: image and weights are on the node."""
AWAKE: Final = Startup(node_s=0.0, image_s=0.0, weights_s=2.5, warmup_s=0.5, warmth="wake")
"""Median 3 s: a sleeper is woken."""


def settings(believed: Coefficients = LLAMA_70B_FP8_4XH100, budget_gpus: int | None = None) -> Settings:
    """What the policy is told. `believed`: the coefficients that it starts from."""
    pool = PoolSettings(
        coefficients=believed, min_replicas=1, max_replicas=MAX_REPLICAS, gpus=DEVICES, price_per_hour=float(DEVICES)
    )
    objective = Objective(name="interactive", ttft_base_s=TTFT_S, tpot_s=TPOT_S, attainment=0.99)
    return Settings(prefill=pool, decode=pool, objectives=(objective,), budget_gpus=budget_gpus, role_flip=True)


def fleet(startup: Startup = COLD, gpus: int | None = None, prefix_cache_tokens: int = 0) -> Fleet:
    """What there is."""
    return Fleet(
        prefill=LLAMA_70B_FP8_4XH100,
        decode=LLAMA_70B_FP8_4XH100,
        startup=startup,
        gpus=gpus,
        prefix_cache_tokens=prefix_cache_tokens,
        flip_s=FLIP_S,
    )
