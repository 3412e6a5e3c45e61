"""Types of command line flags, for argparse: each names what it expects."""

from __future__ import annotations

import argparse
from typing import Final


def parse_port(words: str) -> int:
    """0 takes any free port. Event loops differ in what they make of 99999: one listens on 34463."""
    if not (words.isascii() and words.isdigit() and int(words) < 65536):
        raise argparse.ArgumentTypeError(f"{words!r} is not a port from 0 to 65535")
    return int(words)


def parse_count(words: str) -> int:
    """At least 1."""
    if not (words.isascii() and words.isdigit() and 0 < int(words) < 1 << 31):
        raise argparse.ArgumentTypeError(f"{words!r} is not a whole number of at least 1")
    return int(words)


def parse_natural(words: str) -> int:
    """At least 0."""
    if not (words.isascii() and words.isdigit()):
        raise argparse.ArgumentTypeError(f"{words!r} is not a whole number of at least 0")
    return int(words)


DRAFT_TOKENS: Final = 7
"""Longest draft where the flag names none: a processor computes 8 rows about as fast as one."""
MOST_DRAFT_TOKENS: Final = 31


def parse_speculation(words: str) -> int:
    """`ngram` or `ngram:K`: the longest draft."""
    kind, colon, count = words.partition(":")
    tokens = count if colon else str(DRAFT_TOKENS)
    if kind != "ngram" or not (tokens.isascii() and tokens.isdigit() and 1 <= int(tokens) <= MOST_DRAFT_TOKENS):
        raise argparse.ArgumentTypeError(f"{words!r} is not ngram or ngram:K with K from 1 to {MOST_DRAFT_TOKENS}")
    return int(tokens)


class OneLineParser(argparse.ArgumentParser):
    """A wrong flag is answered with one line that says which, not with the list of all flags."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """Exit code 2."""
        self.exit(2, f"{self.prog}: {message} ({self.prog} --help lists all flags)\n")
