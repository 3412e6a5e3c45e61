"""Pieces that several benchmarks measure with."""
