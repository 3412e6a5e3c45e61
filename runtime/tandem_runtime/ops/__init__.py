"""Numerical building blocks, each with its reference in plain torch."""
