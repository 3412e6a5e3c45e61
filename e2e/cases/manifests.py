"""InferenceDeployments of the cases. Pods on a lost node are given up after 5 s, so that tests are short."""

from __future__ import annotations

FAST_EVICTION = """
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 5}
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 5}"""


def emulated(name: str, prefill: int = 1, decode: int = 1, router: int = 1, extra: str = "") -> str:
    """Emulated pods: no model, ready in a second, the same router, hand-off and operator."""
    template = f"\n    template:\n     spec:{FAST_EVICTION}"
    return f"""
apiVersion: tandem.dev/v1alpha1
kind: InferenceDeployment
metadata: {{name: {name}}}
spec:
  runtime: {{executor: Emulated, emulated: {{hardwareClass: laptop}}}}
  prefill:
    replicas: {prefill}{template}
  decode:
    replicas: {decode}{template}
  router:
    replicas: {router}{template}
{extra}"""


def real(name: str, uri: str = "file:///models/tiny", context: int = 2048) -> str:
    """The torch executor with real weights; the sample model's own context is 2048 tokens."""
    return f"""
apiVersion: tandem.dev/v1alpha1
kind: InferenceDeployment
metadata: {{name: {name}}}
spec:
  model: {{uri: "{uri}", maxContextTokens: {context}}}
"""
