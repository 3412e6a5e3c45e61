"""The best setting of each rival's formula, as `./tests/run bench autoscaler --tune` found it on the training part."""

from __future__ import annotations

from typing import Final

from tandem_operator.simulation.baselines.saturation import Limits

TUNED: Final[dict[str, dict[str, object]]] = {
    "hpa-utilisation": {"discipline": "deadline", "target": 0.5},
    "hpa-kv-queue": {"discipline": "deadline", "kv_target": 0.3, "queue_target": 0.5},
    "token-capacity": {"discipline": "deadline", "up": 0.5, "down": 0.5, "period_s": 15.0},
    "token-velocity": {"discipline": "deadline", "down_window_s": 120.0, "spare_decode": 2},
    "concurrency-panic": {"discipline": "deadline", "prefill_target": 1.0, "decode_target": 32.0},
    "hybrid-regression": {"discipline": "deadline", "slow_s": 30.0, "counted": "arrivals", "predictor": "kalman"},
    "saturation": {
        "discipline": "deadline",
        "limits": Limits(kv=0.5, queue=2.0, spare_kv=0.1, spare_queue=1.5),
        "period_s": 15.0,
    },
}
"""Fields to replace, by name of the formula."""
