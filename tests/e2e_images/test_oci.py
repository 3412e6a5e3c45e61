from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e.images.layers import layer_key, store_layer
from e2e.images.oci import Config, File, Image, Layer, assemble, copy_thin, read_index, write_archive

LINK = File(target="tool")


def make_tree(folder: Path) -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "tool").write_bytes(b"#!/bin/sh\n")
    (folder / "sub" / "tool").chmod(0o755)
    (folder / "sub" / "alias").symlink_to("tool")
    os.link(folder / "sub" / "tool", folder / "twin")
    return folder


def read_archive(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]


def test_every_blob_of_an_archive_has_the_digest_and_size_that_refer_to_it(tmp_path: Path) -> None:
    layers = [Layer("opt/a", make_tree(tmp_path / "tree")), Layer("", {"etc/passwd": b"root", "bin/sh": LINK})]
    info = write_archive("localhost/x:dev", tmp_path / "x.tar", layers, Config(entrypoint=("/x",)), cache=tmp_path)
    content = read_archive(tmp_path / "x.tar")
    assert json.loads(content["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    manifest_entry = json.loads(content["index.json"])["manifests"][0]
    assert manifest_entry["digest"] == info.digest
    manifest = json.loads(content[f"blobs/{info.digest.replace(':', '/')}"])
    for part in (manifest_entry, manifest["config"], *manifest["layers"]):
        blob = content[f"blobs/{part['digest'].replace(':', '/')}"]
        assert hashlib.sha256(blob).hexdigest() == part["digest"].removeprefix("sha256:")
        assert len(blob) == part["size"]
    config = json.loads(content[f"blobs/{manifest['config']['digest'].replace(':', '/')}"])
    assert config["rootfs"]["diff_ids"] == list(info.layers) == [layer["digest"] for layer in manifest["layers"]]
    assert config["config"]["User"] == "65532:65532"
    assert config["config"]["Entrypoint"] == ["/x"]
    assert (tmp_path / "x.tar").stat().st_size == info.archive_bytes
    assert read_index(tmp_path / "x.tar") == ("localhost/x:dev", info.digest)


def test_layers_keep_modes_and_links_and_list_parents_first(tmp_path: Path) -> None:
    blob = store_layer(Layer("opt/a", make_tree(tmp_path / "tree")), tmp_path)
    assert blob.path is not None
    with tarfile.open(blob.path) as layer:
        entries = layer.getmembers()
    names = [entry.name for entry in entries]
    assert names == ["opt", "opt/a", "opt/a/sub", "opt/a/sub/alias", "opt/a/sub/tool", "opt/a/twin"]
    by_name = dict(zip(names, entries, strict=True))
    assert by_name["opt/a/sub/alias"].linkname == "tool"
    assert by_name["opt/a/sub/tool"].mode == 0o755
    assert by_name["opt/a/twin"].isreg()
    assert {(entry.uid, entry.gid, entry.mtime) for entry in entries} == {(0, 0, 0)}


def test_files_that_only_their_owner_could_read_can_be_read_in_the_image(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    (tree / "twin").chmod(0o700)
    (tree / "secret").write_bytes(b"")
    (tree / "secret").chmod(0o600)
    (tree / "sub").chmod(0o700)
    (tree / "tmp").mkdir()
    (tree / "tmp").chmod(0o1777)
    blob = store_layer(Layer("", tree), tmp_path)
    assert blob.path is not None
    with tarfile.open(blob.path) as layer:
        modes = {entry.name: entry.mode for entry in layer}
    assert modes["secret"] == 0o644
    assert modes["twin"] == modes["sub"] == 0o755
    assert modes["tmp"] == 0o1777


def test_the_same_content_gives_the_same_image_in_another_cache_at_another_time(tmp_path: Path) -> None:
    images: list[Image] = []
    for run in ("one", "two"):
        tree = make_tree(tmp_path / run / "tree")
        os.utime(tree / "twin", (len(images), len(images)))
        images.append(assemble("localhost/x:dev", [Layer("a", tree)], Config(), tmp_path / run))
    assert images[0].digest == images[1].digest


def test_a_stored_layer_is_not_written_again_until_its_content_changes(tmp_path: Path) -> None:
    first = store_layer(Layer("", {"a": b"1"}), tmp_path)
    assert first.path is not None
    inode = first.path.stat().st_ino
    again = store_layer(Layer("", {"a": b"1"}), tmp_path)
    assert again.path is not None
    assert again.path.stat().st_ino == inode
    assert store_layer(Layer("", {"a": b"2"}), tmp_path).digest != first.digest
    again.path.unlink()
    assert store_layer(Layer("", {"a": b"1"}), tmp_path).digest == first.digest


def test_concurrent_builds_of_one_layer_agree_and_leave_no_temporary_file(tmp_path: Path) -> None:
    layer = Layer("a", {str(number): os.urandom(1000) for number in range(50)})
    with ThreadPoolExecutor(8) as pool:
        digests = {blob.digest for blob in pool.map(lambda _: store_layer(layer, tmp_path), range(16))}
    assert len(digests) == 1
    assert [path.name for path in (tmp_path / "blobs").iterdir()] == [digests.pop().removeprefix("sha256:")]


def test_a_thin_archive_leaves_out_exactly_what_the_store_has(tmp_path: Path) -> None:
    layers = [Layer("", {"big": b"x" * 5000}), Layer("", {"code": b"y"})]
    image = assemble("localhost/x:dev", layers, Config(), tmp_path)
    image.write(tmp_path / "full.tar")
    have = {image.layers[0]}
    image.write(tmp_path / "thin.tar", have)
    missing = set(read_archive(tmp_path / "full.tar")) - set(read_archive(tmp_path / "thin.tar"))
    assert missing == {f"blobs/{image.layers[0].replace(':', '/')}"}
    copied = io.BytesIO()
    assert copy_thin(tmp_path / "full.tar", copied, have) > 5000
    (tmp_path / "copied.tar").write_bytes(copied.getvalue())
    assert read_archive(tmp_path / "copied.tar") == read_archive(tmp_path / "thin.tar")


def test_a_layout_has_the_files_of_the_archive_and_shares_its_layers_with_the_cache(tmp_path: Path) -> None:
    image = assemble("localhost/x:dev", [Layer("", {"big": b"x" * 5000})], Config(), tmp_path)
    image.write(tmp_path / "full.tar")
    image.link(tmp_path / "layout")
    assert read_index(tmp_path / "layout") == read_index(tmp_path / "full.tar") == (image.name, image.digest)
    layer = image.layers[0].removeprefix("sha256:")
    assert (tmp_path / "layout/blobs/sha256" / layer).samefile(tmp_path / "blobs" / layer)
    with (tmp_path / "copied.tar").open("wb") as file:
        assert copy_thin(tmp_path / "layout", file) == 0
    assert read_archive(tmp_path / "copied.tar") == read_archive(tmp_path / "full.tar")


def test_a_file_that_is_no_archive_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"not a tar")
    with pytest.raises(ValueError, match=r"x\.tar is no OCI archive of ours .* build again"):
        read_index(tmp_path / "x.tar")


files = st.dictionaries(st.sampled_from(["a", "b/c", "b/d", "e/f/g"]), st.binary(max_size=5), min_size=1)


@given(one=files, two=files)
def test_two_layers_have_one_key_exactly_when_their_files_are_equal(
    one: dict[str, bytes], two: dict[str, bytes]
) -> None:
    same = layer_key(Layer("p", {**one})) == layer_key(Layer("p", {**two}))
    assert same == (one == two)
