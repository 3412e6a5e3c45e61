"""`tandem-runtime fetch URI --to DIR`: the init container of every pod that needs a model folder."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tandem_runtime.contracts.names import EXIT_BAD_CONFIG, EXIT_BAD_MODEL, TERMINATION_LOG
from tandem_runtime.fetch.checks import check_folder
from tandem_runtime.fetch.errors import FetchError, UriError
from tandem_runtime.fetch.store import Store
from tandem_runtime.fetch.uri import ClaimUri, FolderUri, HubUri, WebUri, parse_uri

if TYPE_CHECKING:
    from tandem_runtime.fetch.sources import Source

DEFAULT_HUB: Final = "https://huggingface.co"
PARALLEL_FILES: Final = 4
"""Enough to fill a link that limits single connections, few enough for a small web server."""
EXIT_TERMINATED: Final = 128 + signal.SIGTERM


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `fetch`."""
    parser.description = "Bring a model folder; run again to resume. Set HF_TOKEN for gated or private models."
    parser.add_argument("uri", help="hf://org/repo[@revision], http(s)://host/folder/, pvc://claim/path, file:///path")
    parser.add_argument("--to", type=Path, metavar="DIR", help="folder to fill (hf://, http://, https://)")
    parser.add_argument(
        "--only", choices=["tokenizer"], metavar="tokenizer", help="leave the weights out: what a router needs"
    )
    parser.add_argument("--endpoint", metavar="URL", help=f"the hub (default: $HF_ENDPOINT, else {DEFAULT_HUB})")
    parser.add_argument("--mount", type=Path, metavar="DIR", help="where the claim of pvc:// is mounted")
    parser.add_argument(
        "--parallel", type=int, default=PARALLEL_FILES, metavar="N", help="files at a time (%(default)s)"
    )
    parser.add_argument(
        "--termination-log", type=Path, default=Path(TERMINATION_LOG), metavar="FILE", help="why it failed, in one line"
    )


def run(args: argparse.Namespace) -> int:
    """Exit code: 0, EXIT_BAD_CONFIG, EXIT_BAD_MODEL or EXIT_TERMINATED; the reason is one line on stderr."""
    try:
        asyncio.run(_run(args))
    except UriError as error:
        return _fail(str(error), args.termination_log, EXIT_BAD_CONFIG)
    except FetchError as error:
        return _fail(str(error), args.termination_log, EXIT_BAD_MODEL)
    except asyncio.CancelledError:
        return EXIT_TERMINATED
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


async def _run(args: argparse.Namespace) -> None:
    # As the first process of a container it would otherwise not hear SIGTERM at all.
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    uri = parse_uri(args.uri)
    tokenizer_only = args.only == "tokenizer"
    if isinstance(uri, FolderUri | ClaimUri):
        folder = _find_folder(uri, args.mount)
        check_folder(folder, tokenizer_only)
        _say(f"{folder} holds a whole model" if not tokenizer_only else f"{folder} holds a tokenizer")
        return
    if args.to is None:
        raise UriError(f"{uri} needs --to DIR")
    if args.parallel < 1:
        raise UriError(f"--parallel is {args.parallel}; it must be 1 or more")
    if Store(args.to).is_complete(str(uri), tokenizer_only):
        _say(f"{args.to} holds {uri} already")
        return
    # Here, because a restarted pod whose model is there should not pay for an HTTP client.
    from tandem_runtime.fetch.client import Client, Patience, open_session
    from tandem_runtime.fetch.fetcher import fetch

    patience = Patience()
    async with open_session(patience) as session:
        client = Client(session, patience, _say, _authorization(uri))
        source = _make_source(uri, args.endpoint)
        await fetch(source, str(uri), args.to, client, tokenizer_only=tokenizer_only, parallel_files=args.parallel)


def _make_source(uri: HubUri | WebUri, endpoint: str | None) -> Source:
    from tandem_runtime.fetch.sources import HubSource, WebSource

    if isinstance(uri, WebUri):
        return WebSource(uri)
    return HubSource(uri, endpoint or os.environ.get("HF_ENDPOINT") or DEFAULT_HUB)


def _authorization(uri: HubUri | WebUri) -> dict[str, str]:
    """The hub's token; aiohttp does not pass it on when the hub redirects to another host."""
    token = os.environ.get("HF_TOKEN", "").strip()
    return {"Authorization": f"Bearer {token}"} if token and isinstance(uri, HubUri) else {}


def _find_folder(uri: FolderUri | ClaimUri, mount: Path | None) -> Path:
    if isinstance(uri, FolderUri):
        return uri.folder
    if mount is None:
        raise UriError(f"{uri} needs --mount DIR, the folder where the claim {uri.claim} is mounted")
    return mount / uri.path


def _say(line: str) -> None:
    print(f"fetch: {line}", file=sys.stderr, flush=True)


def _fail(reason: str, termination_log: Path, code: int) -> int:
    line = " ".join(reason.split())
    _say(line)
    try:
        with termination_log.open("r+" if str(termination_log) == TERMINATION_LOG else "w") as file:
            file.truncate(0)
            file.write(line + "\n")
    except OSError:
        pass  # outside of a pod there is none
    return code
