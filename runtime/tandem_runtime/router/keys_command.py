"""`tandem-runtime keys new|hash`: make an API key, or the entry of one that exists, to put into the Secret."""

from __future__ import annotations

import argparse
import secrets
import sys

from tandem_runtime.contracts.flags import parse_count
from tandem_runtime.contracts.key_entry import MAX_KEY_CHARACTERS, NAME, KeyEntry, complaint, hash_of, write_entry
from tandem_runtime.contracts.names import EXIT_BAD_CONFIG

PREFIX = "tandem-"
"""So that people and scanners of leaked secrets recognise it."""
KEY_BYTES = 32
SHORTEST_CHARACTERS = 32
"""Of a key made elsewhere: a plain hash protects only what cannot be guessed, and 32 random characters cannot."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`new` and `hash` take the same limits."""
    parser.epilog = (
        "The entry goes into the Secret that spec.router.apiKeysSecret names, under the name of the key: "
        "`tandem-runtime keys new alice > alice.json`, then "
        "`kubectl create secret generic keys --from-file=alice=alice.json`. "
        "Routers take over changes within about a minute, without a restart."
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    new = actions.add_parser("new", help="make a key: the entry to stdout, the key itself to stderr, once")
    known = actions.add_parser("hash", help="the entry of a key that is read from stdin")
    new.add_argument("name", metavar="NAME", help="of the key, as it stands in logs and in the Secret")
    for action in (new, known):
        action.add_argument(
            "--class", dest="request_class", default="", metavar="CLASS", help="of requests without one"
        )
        action.add_argument("--tenant", default="", metavar="NAME", help="keys of one tenant share cached prompts")
        for flag, words in (
            ("--max-concurrent", "requests at once"),
            ("--requests-per-minute", "over all routers"),
            ("--tokens-per-minute", "of prompts and answers, over all routers"),
        ):
            action.add_argument(flag, type=parse_count, metavar="N", help=f"{words} (default: no limit)")


def run(args: argparse.Namespace) -> int:
    """0, or 2 with one line that says what is wrong."""
    key = PREFIX + secrets.token_urlsafe(KEY_BYTES) if args.action == "new" else sys.stdin.readline().strip()
    if not SHORTEST_CHARACTERS <= len(key) <= MAX_KEY_CHARACTERS:
        allowed = f"{SHORTEST_CHARACTERS} to {MAX_KEY_CHARACTERS} random characters"
        return _fail(f"the key on stdin has {len(key)} characters; {allowed} are needed, `keys new` makes such a key")
    if args.action == "new" and not NAME.fullmatch(args.name):
        return _fail(f"{args.name!r} is no name for a key: up to 40 letters, digits and - . _ are allowed")
    entry = KeyEntry(
        hash_of(key),
        args.request_class,
        args.tenant,
        args.max_concurrent,
        args.requests_per_minute,
        args.tokens_per_minute,
    )
    if problem := complaint(entry):
        return _fail(problem)
    print(write_entry(entry).decode())
    if args.action == "new":
        print(f"the key {args.name}, shown this once: {key}", file=sys.stderr)
    return 0


def _fail(message: str) -> int:
    print(f"tandem-runtime keys: {message}", file=sys.stderr)
    return EXIT_BAD_CONFIG
