"""A model arrives whole or not at all, whatever the server does; what came is never fetched twice."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tandem_runtime.fetch.client import Client, Patience, open_session
from tandem_runtime.fetch.errors import FetchError
from tandem_runtime.fetch.fetcher import fetch
from tandem_runtime.fetch.sources import HubSource, WebSource
from tandem_runtime.fetch.uri import HubUri, WebUri, parse_uri

from tests.runtime.fetch.web import ModelServer, model_files, safetensors, serving

PATIENCE = Patience(attempts=4, connect_timeout_seconds=2, read_timeout_seconds=2)


class Fetcher:
    """fetch() against a server, without waiting between tries."""

    def __init__(self, server: ModelServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.lines: list[str] = []
        self.waits: list[float] = []
        self.stop_at_wait: asyncio.Task[None] | None = None

    async def __call__(self, form: str = "web", **options: Any) -> None:
        async def sleep(seconds: float) -> None:
            self.waits.append(seconds)
            if self.stop_at_wait is not None:
                self.stop_at_wait.cancel()
                await asyncio.sleep(0)

        uri = parse_uri("hf://org/repo" if form == "hub" else f"{self.server.url}/m")
        assert isinstance(uri, HubUri | WebUri)
        source = HubSource(uri, self.server.url) if isinstance(uri, HubUri) else WebSource(uri)
        async with open_session(PATIENCE) as session:
            client = Client(session, PATIENCE, self.lines.append, sleep=sleep, jitter=lambda: 1.0)
            await fetch(source, str(uri), self.folder, client, **options)

    async def start_and_stop(self, form: str) -> None:
        """Is stopped at the first cut connection, as by a kill."""
        self.stop_at_wait = asyncio.create_task(self(form))
        with pytest.raises(asyncio.CancelledError):
            await self.stop_at_wait
        self.stop_at_wait = None

    def holds(self, files: dict[str, bytes]) -> bool:
        there = {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file() and ".tandem" not in path.parts
        }
        return there == files

    def partial(self, name: str = "model.safetensors") -> Path:
        return self.folder / ".tandem" / "parts" / f"{name}.partial"


FORMS = pytest.mark.parametrize("form", ["web", "hub"])


@FORMS
@pytest.mark.parametrize("shards", [1, 3])
async def test_a_model_arrives_whole_and_the_second_run_asks_nobody(tmp_path: Path, form: str, shards: int) -> None:
    files = model_files(shards)
    extra = {
        "README.md": b"x",
        "pytorch_model.bin": b"x" * 1000,
        "original/params.json": b"{}",
        "tokenizer.model": b"x",
    }
    async with serving({**files, **extra, "consolidated.safetensors": b"x"}) as server:
        run = Fetcher(server, tmp_path / "model")
        await run(form)
        assert run.holds(files)
        asked = len(server.log)
        await run(form)
        assert len(server.log) == asked
        assert "already" in run.lines[-1]
        assert not (run.folder / ".tandem" / "parts").joinpath("config.json.json").exists()


@FORMS
async def test_a_router_gets_the_tokenizer_without_weights_and_a_pod_the_rest_later(tmp_path: Path, form: str) -> None:
    files = model_files()
    async with serving(dict(files)) as server:
        run = Fetcher(server, tmp_path)
        await run(form, tokenizer_only=True)
        assert run.holds({name: content for name, content in files.items() if "safetensors" not in name})
        await run(form)
        assert run.holds(files)
        asked = len(server.log)
        await run(form, tokenizer_only=True)
        assert len(server.log) == asked


@FORMS
async def test_cut_connections_are_resumed_where_they_ended(tmp_path: Path, form: str) -> None:
    files = model_files(shards=2)
    async with serving(dict(files), cut_after=40_000) as server:
        run = Fetcher(server, tmp_path)
        await run(form)
        assert run.holds(files)
        for name, content in files.items():
            if name.endswith(".safetensors"):
                assert len(content) <= server.sent_bytes[name] < 2 * len(content), "bytes were sent twice"


@FORMS
async def test_another_process_goes_on_where_a_killed_one_stopped(tmp_path: Path, form: str) -> None:
    files = model_files()
    async with serving(dict(files), cut_after=120_000) as server:
        run = Fetcher(server, tmp_path)
        await run.start_and_stop(form)
        there = run.partial().stat().st_size
        assert there > 0
        assert not (tmp_path / "model.safetensors").exists()
        server.cut_after, server.log = None, []
        await run(form)
        assert run.holds(files)
        assert ("GET", f"bytes={there}-") in [(method, wanted) for method, _, wanted in server.log]


@FORMS
async def test_a_server_that_knows_no_ranges_costs_time_not_bytes(tmp_path: Path, form: str) -> None:
    files = model_files()
    async with serving(dict(files), cut_after=40_000, ranges=False) as server:
        server.on_cut = lambda: setattr(server, "cut_after", None)
        run = Fetcher(server, tmp_path)
        await run(form)
        assert run.holds(files)


@FORMS
async def test_a_range_that_starts_elsewhere_is_not_believed(tmp_path: Path, form: str) -> None:
    files = model_files()
    async with serving(dict(files), cut_after=40_000, wrong_range=True) as server:
        server.on_cut = lambda: setattr(server, "cut_after", None)
        run = Fetcher(server, tmp_path)
        await run(form)
        assert run.holds(files)


@pytest.mark.parametrize("tagged", [True, False])
async def test_a_file_that_changes_in_between_is_not_stitched_together(tmp_path: Path, tagged: bool) -> None:
    server: ModelServer
    async with serving(model_files(), cut_after=100_000, tagged=tagged) as server:

        def change() -> None:
            server.files["model.safetensors"] = safetensors(280_000, "other")
            server.cut_after = None

        server.on_cut = change
        run = Fetcher(server, tmp_path)
        await run()
        assert run.holds(server.files)


async def test_whole_files_of_an_earlier_version_are_fetched_anew(tmp_path: Path) -> None:
    async with serving(model_files(shards=2), cut_after=40_000) as server:
        run = Fetcher(server, tmp_path)
        await run.start_and_stop("web")
        server.cut_after = None
        server.files["config.json"] = b'{"architectures": ["LlamaForCausalLM"], "v": 2}'
        await run()
        assert run.holds(server.files)


@FORMS
async def test_errors_that_pass_are_waited_out_longer_each_time(tmp_path: Path, form: str) -> None:
    files = model_files()
    async with serving(dict(files), fail_first=[503, 429, 500]) as server:
        run = Fetcher(server, tmp_path)
        await run(form)
        assert run.holds(files)
        assert run.waits == [0.5, 1.0, 2.0]


@FORMS
async def test_patience_ends_with_the_reason_and_the_count(tmp_path: Path, form: str) -> None:
    async with serving(model_files(), fail_first=[503] * 99) as server:
        with pytest.raises(FetchError, match=r"503 Service Unavailable.*4 tries.*run again to resume"):
            await Fetcher(server, tmp_path)(form)


async def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    server = ModelServer({}, url="http://127.0.0.1:9")
    with pytest.raises(FetchError, match=r"http://127\.0\.0\.1:9/m/SHA256SUMS.*gave up after 4 tries"):
        await Fetcher(server, tmp_path)()


Spoil = Callable[[ModelServer], object]
SPOILED: dict[str, tuple[str, Spoil, str]] = {
    "no folder": ("web", lambda s: s.files.clear(), "config.json answers 404 Not Found.*spelling"),
    "no repository": ("hub", lambda s: setattr(s, "fail_first", [404]), "/api/models/org/repo.* 404 "),
    "gated": ("hub", lambda s: setattr(s, "fail_first", [403]), "403 Forbidden.*HF_TOKEN"),
    "unauthorised": ("web", lambda s: s.refuse.update({"model.safetensors": 401}), "safetensors answers 401.*HF_TOKEN"),
    "no tokenizer": ("hub", lambda s: s.files.pop("tokenizer.json"), "has no tokenizer.json"),
    "no weights": ("hub", lambda s: s.files.pop("model.safetensors"), r"no \*\.safetensors"),
    "no web weights": ("web", lambda s: s.files.pop("model.safetensors"), "/m/model.safetensors answers 404"),
    "says too much": ("web", lambda s: setattr(s, "extra_length", 7), "connection ended after 300078 of 300085 bytes"),
    "says too little": (
        "web",
        lambda s: setattr(s, "extra_length", -7),
        "truncated: 300071 bytes, its header says 300078",
    ),
    "hub says other": ("hub", lambda s: setattr(s, "extra_length", -7), "has 300071 bytes, the file list says 300078"),
    "page instead": ("web", lambda s: s.files.update({"config.json": b"<html>"}), "config.json sends is damaged"),
    "not an object": ("web", lambda s: s.files.update({"config.json": b"[]"}), "config.json holds a list"),
    "not safetensors": ("web", lambda s: s.files.update({"model.safetensors": b"<html>404"}), "damaged: 9 bytes"),
    "bad sums": ("web", lambda s: s.files.update({"SHA256SUMS": b"<html>"}), "no checksum list: '<html>'"),
    "no list": ("hub", lambda s: setattr(s, "siblings", [{"name": 1}]), "gives no file list"),
    "up the tree": ("hub", lambda s: setattr(s, "siblings", [{"rfilename": "../../x.json"}]), "refused"),
    "absolute": ("hub", lambda s: setattr(s, "siblings", [{"rfilename": "/etc/x.json"}]), "refused"),
    "index up the tree": (
        "web",
        lambda s: s.files.update({"model.safetensors.index.json": b'{"weight_map": {"w": "../w.safetensors"}}'}),
        r"names the file '\.\./w\.safetensors': refused",
    ),
    "index of others": (
        "web",
        lambda s: s.files.update({"model.safetensors.index.json": b'{"weight_map": {"w": "run.sh"}}'}),
        r"'run\.sh'",
    ),
    "index of the missing": (
        "hub",
        lambda s: s.files.update({"model.safetensors.index.json": b'{"weight_map": {"w": "w.safetensors"}}'}),
        r"names w\.safetensors, which the repository does not have",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
async def test_what_is_wrong_is_said_and_nothing_is_called_complete(tmp_path: Path, case: str) -> None:
    form, spoil, words = SPOILED[case]
    async with serving(model_files()) as server:
        spoil(server)
        run = Fetcher(server, tmp_path / "to")
        with pytest.raises(FetchError, match=words) as caught:
            await run(form)
        assert "\n" not in str(caught.value)
        assert not (run.folder / ".tandem" / "complete.json").exists()
        assert not (run.folder / "model.safetensors").exists()
        assert os.listdir(tmp_path) == ["to"]


@FORMS
async def test_a_wrong_checksum_is_shown_with_both_values_and_can_be_mended(tmp_path: Path, form: str) -> None:
    files = model_files()
    async with serving(dict(files)) as server:
        good = server.sibling("model.safetensors", files["model.safetensors"])
        server.sums()
        server.siblings = [server.sibling(name, content) for name, content in files.items()]
        broken = bytearray(files["model.safetensors"])
        broken[-1] ^= 1
        server.files["model.safetensors"] = bytes(broken)
        run = Fetcher(server, tmp_path)
        with pytest.raises(FetchError, match=f"sha256 is [0-9a-f]{{64}}, should be {good['lfs']['sha256']}"):
            await run(form)
        server.files["model.safetensors"] = files["model.safetensors"]
        await run(form)
        assert run.holds(files)


@FORMS
async def test_a_partial_file_that_rotted_is_fetched_anew_once(tmp_path: Path, form: str) -> None:
    files = model_files()
    async with serving(dict(files), cut_after=100_000) as server:
        server.sums()
        run = Fetcher(server, tmp_path)
        await run.start_and_stop(form)
        data = bytearray(run.partial().read_bytes())
        data[5] ^= 1
        run.partial().write_bytes(data)
        server.cut_after = None
        await run(form)
        assert run.holds(files)


async def test_small_hub_files_are_checked_too(tmp_path: Path) -> None:
    async with serving(model_files()) as server:
        server.siblings = [server.sibling(name, content) for name, content in server.files.items()]
        server.files["config.json"] = server.files["config.json"].replace(b"Llama", b"Lahma")
        with pytest.raises(FetchError, match=r"config\.json: git sha1 is"):
            await Fetcher(server, tmp_path)("hub")


@FORMS
async def test_too_little_room_is_said_before_the_weights_with_numbers(tmp_path: Path, form: str) -> None:
    async with serving(model_files(shard_bytes=3 << 20)) as server:
        with pytest.raises(FetchError, match=r"has 3\.5 MiB free, the model needs 3\.0 MiB more"):
            await Fetcher(server, tmp_path)(form, free_bytes=lambda _: 7 << 19)
        assert not server.sent_bytes["model.safetensors"]


async def test_a_folder_that_holds_another_model_is_not_overwritten(tmp_path: Path) -> None:
    async with serving(model_files()) as server:
        await Fetcher(server, tmp_path)("web")
        with pytest.raises(FetchError, match=r"holds http.*, not hf://org/repo@main"):
            await Fetcher(server, tmp_path)("hub")


async def test_a_complete_folder_that_lost_a_file_is_completed(tmp_path: Path) -> None:
    files = model_files()
    async with serving(dict(files)) as server:
        run = Fetcher(server, tmp_path)
        await run()
        (tmp_path / "model.safetensors").unlink()
        await run()
        assert run.holds(files)


async def test_two_at_once_fetch_every_byte_once(tmp_path: Path) -> None:
    files = model_files()
    async with serving(dict(files)) as server:
        run = Fetcher(server, tmp_path)
        await asyncio.gather(run(), run())
        assert run.holds(files)
        assert server.sent_bytes["model.safetensors"] == len(files["model.safetensors"])


async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with serving(model_files()) as server:
        with pytest.raises(FetchError, match="file/model cannot be written"):
            await Fetcher(server, tmp_path / "file" / "model")()


async def test_the_record_says_what_is_there(tmp_path: Path) -> None:
    files = model_files()
    async with serving(dict(files)) as server:
        await Fetcher(server, tmp_path)("hub")
    record = json.loads((tmp_path / ".tandem" / "complete.json").read_text())
    assert record["uri"] == "hf://org/repo@main"
    assert record["files"] == {name: len(content) for name, content in files.items()}
