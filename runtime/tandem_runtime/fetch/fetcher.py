"""The order of a fetch: is it there, list, small files, room, weights, check the whole, record."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tandem_runtime.fetch.checks import INDEX, check_folder, read_index
from tandem_runtime.fetch.client import Client
from tandem_runtime.fetch.download import Download
from tandem_runtime.fetch.errors import FetchError
from tandem_runtime.fetch.progress import Tally, show_progress
from tandem_runtime.fetch.sources import RemoteFile, Source
from tandem_runtime.fetch.store import Store, format_bytes


def disk_free_bytes(folder: Path) -> int:
    """Free for us on the file system of `folder`."""
    return shutil.disk_usage(folder).free


async def fetch(
    source: Source,
    uri: str,
    folder: Path,
    client: Client,
    *,
    tokenizer_only: bool = False,
    free_bytes: Callable[[Path], int] = disk_free_bytes,
    parallel_files: int = 4,
) -> None:
    """Fills `folder`. Raises FetchError; what came so far stays for the next run."""
    store = Store(folder)
    async with store.lock(client.say):
        if store.is_complete(uri, tokenizer_only):  # another fetch may have finished while this one waited
            client.say(f"{folder} holds {uri} already")
            return
        tally = Tally()
        async with show_progress(tally, client.say):
            files = await source.list_small(client, tokenizer_only)
            client.say(f"fetching {uri} into {folder}")
            await _bring(files, store, client, tally, free_bytes, parallel_files)
            await asyncio.to_thread(check_folder, folder, tokenizer_only=True)
            if not tokenizer_only:
                has_index = INDEX in {file.name for file in files}
                shards = await asyncio.to_thread(read_index, folder / INDEX) if has_index else None
                weights = await source.list_weights(client, shards)
                await _bring(weights, store, client, tally, free_bytes, parallel_files)
                files = [*files, *weights]
        await asyncio.to_thread(check_folder, folder, tokenizer_only)
        store.write_record(uri, tokenizer_only, [file.name for file in files])
        client.say(f"complete: {len(files)} files, {tally.line()}; {format_bytes(tally.received_bytes)} came now")


async def _bring(
    files: list[RemoteFile],
    store: Store,
    client: Client,
    tally: Tally,
    free_bytes: Callable[[Path], int],
    parallel_files: int,
) -> None:
    downloads = [Download(client, file, store.folder, partial(tally.report, file.name)) for file in files]
    missing = 0
    for file, download in zip(files, downloads, strict=True):
        there = download.bytes_on_disk()
        tally.expect(file.name, file.size_bytes, there)
        missing += max(0, (file.size_bytes or 0) - there)
    store.check_room(missing, free_bytes(store.folder))
    gate = asyncio.Semaphore(parallel_files)

    async def run(download: Download) -> None:
        async with gate:
            await download.run()

    try:
        async with asyncio.TaskGroup() as group:
            for download in downloads:
                group.create_task(run(download))
    except BaseExceptionGroup as errors:
        known = errors.subgroup(FetchError)
        raise (known or errors).exceptions[0] from errors
