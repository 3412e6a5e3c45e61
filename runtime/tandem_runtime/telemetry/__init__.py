"""Logs and the metrics port, shared by router and engine pods."""
