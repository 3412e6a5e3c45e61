"""The router: HTTP front, queue, one connection to every pod, failover. Imports neither torch nor the engine."""
