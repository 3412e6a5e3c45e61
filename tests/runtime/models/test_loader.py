"""Checkpoints: sharded or not; what is wrong with one is said with file, tensor and numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tandem_runtime.models.errors import ModelError
from tandem_runtime.models.loader import INDEX, SINGLE, Checkpoint

WEIGHT = torch.arange(12, dtype=torch.float32).view(3, 4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file({"weight": WEIGHT, "codes": torch.zeros(2, dtype=torch.int8)}, tmp_path / SINGLE)
    return tmp_path


def write_shards(folder: Path, *present: str) -> None:
    weights = {"a": "one.safetensors", "b": "two.safetensors"}
    for name in present:
        save_file({name: WEIGHT}, folder / weights[name])
    (folder / INDEX).write_text(json.dumps({"weight_map": weights}))


def test_a_tensor_comes_back_as_it_was_written(folder: Path) -> None:
    assert torch.equal(Checkpoint(folder).tensor("weight", (3, 4)), WEIGHT)


def test_shards_are_found_through_the_index(tmp_path: Path) -> None:
    write_shards(tmp_path, "a", "b")
    checkpoint = Checkpoint(tmp_path)
    assert torch.equal(checkpoint.tensor("a", (3, 4)), checkpoint.tensor("b", (3, 4)))


@pytest.mark.parametrize(
    ("name", "shape", "named"),
    [
        ("other", (3, 4), "has no tensor other [3, 4]"),
        ("weight", (4, 3), "tensor weight has shape [3, 4], config.json asks for [4, 3]"),
        ("codes", (2,), "tensor codes has dtype I8; supported are F32, BF16, F16"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(folder: Path, name: str, shape: tuple[int, ...], named: str) -> None:
    with pytest.raises(ModelError) as caught:
        Checkpoint(folder).tensor(name, shape)
    assert named in str(caught.value)


@pytest.mark.parametrize(("keep", "named"), [(-8, "should have"), (20, "its header says"), (4, "it has 4 bytes")])
def test_a_truncated_file_is_named_with_both_sizes(folder: Path, keep: int, named: str) -> None:
    path = folder / SINGLE
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError) as caught:
        Checkpoint(folder)
    assert named in str(caught.value)
    assert "fetch the model again" in str(caught.value)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path, "a")
    with pytest.raises(ModelError, match=r"two\.safetensors is missing"):
        Checkpoint(tmp_path).tensor("b", (3, 4))


def test_a_shard_that_belongs_elsewhere_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path, "a")
    (tmp_path / "two.safetensors").write_bytes((tmp_path / "one.safetensors").read_bytes())
    with pytest.raises(ModelError, match=r"two\.safetensors has no tensor b"):
        Checkpoint(tmp_path).tensor("b", (3, 4))


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": 3}'])
def test_a_broken_index_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(ModelError, match=INDEX):
        Checkpoint(tmp_path)


def test_a_folder_without_weights_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="convert the weights to safetensors"):
        Checkpoint(tmp_path)


def test_the_fingerprint_changes_with_one_element(folder: Path) -> None:
    before = Checkpoint(folder).fingerprint()
    assert before == Checkpoint(folder).fingerprint()
    changed = WEIGHT.clone()
    changed[1, 1] += 1
    save_file({"weight": changed, "codes": torch.zeros(2, dtype=torch.int8)}, folder / SINGLE)
    assert Checkpoint(folder).fingerprint() != before


def test_a_tensor_that_nothing_asked_for_is_named_and_not_ignored(folder: Path) -> None:
    checkpoint = Checkpoint(folder)
    checkpoint.tensor("weight", (3, 4))
    with pytest.raises(ModelError, match=r"1 tensors that config.json does not account for, the first is codes"):
        checkpoint.check_all_taken(tied_head=False)


def test_what_is_stored_twice_may_be_left_over(tmp_path: Path) -> None:
    save_file(
        {"lm_head.weight": WEIGHT, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)}, tmp_path / SINGLE
    )
    Checkpoint(tmp_path).check_all_taken(tied_head=True)
    with pytest.raises(ModelError, match=r"lm_head\.weight"):
        Checkpoint(tmp_path).check_all_taken(tied_head=False)


@pytest.mark.parametrize("file", ["../one.safetensors", "/etc/passwd", "sub/one.safetensors"])
def test_an_index_may_not_lead_out_of_its_folder(tmp_path: Path, file: str) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": file}}))
    with pytest.raises(ModelError, match="shards are files beside it"):
        Checkpoint(tmp_path)
