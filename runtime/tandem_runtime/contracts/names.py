"""Ports, labels, roles and paths that the operator renders and the runtime expects."""

from __future__ import annotations

from typing import Final, Literal

Role = Literal["prefill", "decode", "both", "router"]

HTTP_PORT: Final = 8000
"""OpenAI API of `router` and `both`."""
INTERNAL_PORT: Final = 8001
"""Router to engine pod."""
KV_PORT: Final = 8002
"""Prefill pod to decode pod: KV pages."""
METRICS_PORT: Final = 9090
"""/metrics, /healthz, /readyz, /signals."""

LABEL_DEPLOYMENT: Final = "tandem.dev/deployment"
LABEL_ROLE: Final = "tandem.dev/role"
LABEL_REVISION: Final = "tandem.dev/revision"
LABEL_LLMD_ROLE: Final = "llm-d.ai/role"
"""Understood by other routers; its values are ours: prefill, decode, both."""
LABEL_NAME: Final = "app.kubernetes.io/name"
LABEL_INSTANCE: Final = "app.kubernetes.io/instance"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "tandem"

HEADER_CLASS: Final = "x-tandem-class"
"""Service class of a request; without it the first class."""
HEADER_TIMEOUT_MS: Final = "x-tandem-timeout-ms"
DEFAULT_REQUEST_TIMEOUT_SECONDS: Final = 600.0
"""Ends a request with an error; the objective deadline never does."""

TERMINATION_LOG: Final = "/dev/termination-log"
EXIT_BAD_CONFIG: Final = 2
EXIT_BAD_MODEL: Final = 3
EXIT_NO_KEYS: Final = 4
"""A router that was told to ask for API keys and found no valid one: it opens to nobody."""
