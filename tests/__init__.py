"""Tests of both packages; `tests/run` is the one entry point."""
