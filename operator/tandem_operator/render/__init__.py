"""Pure: what is wanted -> Kubernetes objects as plain dicts."""
