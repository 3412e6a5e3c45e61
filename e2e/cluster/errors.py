"""What can go wrong with a cluster, said so that a person can act on it."""

from __future__ import annotations


class ClusterError(Exception):
    """The message names what is wrong, the numbers, and what to do."""


class Unsupported(ClusterError):
    """This kind of cluster cannot do what was asked; the message says which can."""
