"""Health, metrics and logs of the operator itself."""
