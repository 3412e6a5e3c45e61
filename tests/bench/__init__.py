"""Benchmarks: `./tests/run bench NAME`; what they printed stands beside them in NAME.md."""
