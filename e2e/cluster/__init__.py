"""A Kubernetes cluster for everyone: kind, a real one built from Go modules (`local`), or one that exists (`current`).

cluster = open_cluster("auto", nodes=3, yes=True)
cluster.up()
"""

from __future__ import annotations

from e2e.cluster.backend import Cluster, ClusterError, Unsupported
from e2e.cluster.choice import open_cluster

__all__ = ["Cluster", "ClusterError", "Unsupported", "open_cluster"]
