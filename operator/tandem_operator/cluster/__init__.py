"""The outside world: the API server, its watch streams, the Lease."""
