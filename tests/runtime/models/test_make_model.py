"""The sample model: same bytes everywhere, a real tokenizer, every word one token."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file
from tandem_runtime.models.config import read_config
from tandem_runtime.models.families import FAMILIES
from tandem_runtime.models.make_model import make_model, make_weights
from tandem_runtime.models.sample_tokenizer import build_vocabulary
from tandem_runtime.models.sample_words import FOLLOWS, KINDS, words_by_kind
from tokenizers import Tokenizer


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    make_model(directory)
    return directory


@pytest.fixture(scope="module")
def tokenizer(model_dir: Path) -> Tokenizer:
    return Tokenizer.from_file(str(model_dir / "tokenizer.json"))


def read_all(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def test_the_same_seed_gives_the_same_bytes(model_dir: Path, tmp_path: Path) -> None:
    make_model(tmp_path / "again", seed=0)
    assert read_all(tmp_path / "again") == read_all(model_dir)


def test_another_seed_gives_other_weights_and_the_same_tokenizer(model_dir: Path, tmp_path: Path) -> None:
    make_model(tmp_path, seed=1)
    this, other = read_all(model_dir), read_all(tmp_path)
    assert {name for name in this if this[name] != other[name]} == {"model.safetensors"}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_can_be_made_and_is_read_back_as_what_it_is(tmp_path: Path, name: str) -> None:
    make_model(tmp_path, family=FAMILIES[name])
    config = read_config(tmp_path)
    tensors = list(load_file(tmp_path / "model.safetensors"))
    family = FAMILIES[name]
    assert (config.architecture, config.qk_norm) == (family.architecture, family.qk_norm)
    assert any("q_proj.bias" in tensor for tensor in tensors) == config.qkv_bias
    assert any("q_norm" in tensor for tensor in tensors) == config.qk_norm
    assert config.windows == {"llama": (), "mistral": (256,) * 4}.get(name, (0, 0, 256, 256))


def test_weights_and_tokenizer_are_what_they_are_on_every_machine(model_dir: Path) -> None:
    digest = blake2b((model_dir / "tokenizer.json").read_bytes(), digest_size=8)
    for name, array in sorted(make_weights(build_vocabulary()[0], 0).items()):
        digest.update(name.encode() + array.tobytes())
    assert digest.hexdigest() == "6194edaa06c4e537"


def test_every_word_is_one_token(tokenizer: Tokenizer) -> None:
    for words in words_by_kind().values():
        for word in words:
            assert tokenizer.encode(word, add_special_tokens=False).tokens == [word.replace(" ", "Ġ")]


def test_no_word_has_two_kinds_and_every_kind_leads_on() -> None:
    words = [word for words in words_by_kind().values() for word in words]
    assert len(words) == len(set(words))
    assert set(FOLLOWS) == set(KINDS)


@given(text=st.text(max_size=60).filter(lambda text: "<|" not in text))
def test_any_text_survives_encoding_and_decoding(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text


def test_a_text_starts_with_bos(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("hi").tokens[0] == "<|bos|>"
