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
    "queue-length": {"discipline": "deadline", "target": 0.25},
    "bounded-ratio": {"discipline": "deadline", "kv_target": 0.2, "requests_target": 1.0, "rate_up": 4.0},
    "profiled-rates": {"discipline": "deadline", "counted": "arrivals"},
    "throughput-regression": {"discipline": "deadline", "counted": "arrivals", "predictor": "kalman"},
    "load-regression": {"discipline": "deadline"},
    "hybrid-regression-constant": {"discipline": "deadline", "slow_s": 30.0, "counted": "arrivals"},
    "hybrid-regression-kalman": {
        "discipline": "deadline",
        "slow_s": 30.0,
        "counted": "arrivals",
        "predictor": "constant",
    },
    "queueing-model": {"discipline": "deadline", "share": 0.7, "period_s": 15.0},
    "fixed-ratio": {"discipline": "deadline", "target": 0.5, "ratio": 2.0},
}
"""Fields to replace, by name of the formula."""
