"""An engine pod: the internal port for routers, the kv port for other pods, probes, metrics, drain."""
