"""`tandem-runtime make-model DIR`: a small Llama checkpoint that is the same bytes on every machine.

It knows nothing and writes grammatical nonsense. The kind of each token (noun, verb ...) travels in dimensions of its
own and allows only kinds that may follow; random attention over the whole prompt picks the word among them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tandem_runtime.contracts.flags import parse_natural
from tandem_runtime.models.families import FAMILIES, LLAMA, Family
from tandem_runtime.models.sample_tokenizer import build_vocabulary, spell, write_json, write_tokenizer
from tandem_runtime.models.sample_words import BOS, EOS, FOLLOWS, KINDS, SPECIALS, words_by_kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Weights = NDArray[np.float32]

HIDDEN: Final = 128
INTERMEDIATE: Final = 256
LAYERS: Final = 4
HEADS: Final = 8
KV_HEADS: Final = 4
HEAD_DIM: Final = 16
MAX_TOKENS: Final = 2048

WINDOW_TOKENS: Final = 256
"""Of families with one: short enough for a test to go past it."""
BIAS_SCALE: Final = 0.5
QUERY_SCALE: Final = 2.0
"""Standard deviation of attention scores: a few tokens decide, so that a wrong page changes the words."""
UPDATE_SCALE: Final = 1.0
"""What a layer adds, relative to what the token's own embedding brings."""
LOGIT_SCALE: Final = 2.0
"""Standard deviation of the logits of words that may follow: temperature 1 picks among several."""
KIND_LOGIT: Final = 30.0
"""Logit by which allowed kinds stand above the others, in standard deviations of the random part."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `tandem-runtime make-model`."""
    parser.add_argument("directory", type=Path, metavar="DIR", help="folder to write; made when missing")
    parser.add_argument(
        "--seed", type=parse_natural, default=0, metavar="N", help="another seed gives another model (default 0)"
    )
    parser.add_argument(
        "--family", choices=tuple(FAMILIES), default=LLAMA.model_type, help="architecture of the model (default llama)"
    )


def run(args: argparse.Namespace) -> int:
    """Writes the model and says where."""
    try:
        make_model(args.directory, args.seed, FAMILIES[args.family])
    except OSError as error:
        print(
            f"tandem-runtime make-model: cannot write the model into {args.directory}: {error.strerror}",
            file=sys.stderr,
        )
        return 1
    print(f"wrote a sample model into {args.directory}; try: tandem-runtime serve --model {args.directory}")
    return 0


def make_model(directory: Path, seed: int = 0, family: Family = LLAMA) -> None:
    """Writes config.json, generation_config.json, model.safetensors, tokenizer.json and tokenizer_config.json."""
    from safetensors.numpy import save_file

    directory.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = build_vocabulary()
    write_tokenizer(directory, vocabulary, merges, MAX_TOKENS)
    ends = {"bos_token_id": vocabulary[BOS], "eos_token_id": vocabulary[EOS]}
    config = {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        "vocab_size": len(vocabulary),
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "max_position_embeddings": MAX_TOKENS,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    } | ends
    if family.window == "always":
        config["sliding_window"] = WINDOW_TOKENS
    if family.window == "switched":
        config |= {"use_sliding_window": True, "sliding_window": WINDOW_TOKENS, "max_window_layers": LAYERS // 2}
    write_json(directory / "config.json", config)
    write_json(directory / "generation_config.json", {"do_sample": False} | ends)
    weights = make_weights(vocabulary, seed, family)
    save_file(weights, str(directory / "model.safetensors"), metadata={"format": "pt"})
    (directory / "model.safetensors").chmod(0o644)  # the library makes it 0600; pods run as another user


def make_weights(vocabulary: dict[str, int], seed: int, family: Family = LLAMA) -> dict[str, Weights]:
    """Name -> float32 array, as checkpoints of the family name them; what all have in common is the same in all."""
    import numpy as np

    bits = np.random.PCG64(seed)
    kinds = len(KINDS)

    def noise(rows: int, columns: int, deviation: float) -> Weights:
        # The raw stream and exact arithmetic only: numpy may change its distributions, never this.
        raw = (bits.random_raw(rows * columns) >> np.uint64(40)).astype(np.float32)
        uniform = (raw * np.float32(2.0**-23) - np.float32(1.0)) * np.float32(1.7320508)
        return (uniform * np.float32(deviation)).reshape(rows, columns)

    def update(columns: int, deviation: float) -> Weights:
        array = noise(HIDDEN, columns, deviation)
        array[:kinds] = 0.0  # the kind of a token is never overwritten
        return array

    owner = kind_of_tokens(vocabulary)
    spread = HIDDEN**-0.5
    embedding = noise(len(vocabulary), HIDDEN, 1.0)
    embedding[:, :kinds] = np.eye(kinds, dtype=np.float32)[owner]
    head = noise(len(vocabulary), HIDDEN, LOGIT_SCALE * spread)
    head[:, :kinds] = follow_logits()[:, owner].T
    weights = {"model.embed_tokens.weight": embedding, "lm_head.weight": head}
    weights["model.norm.weight"] = np.ones(HIDDEN, dtype=np.float32)
    for layer in range(LAYERS):
        name = f"model.layers.{layer}."
        attention, mlp = name + "self_attn.", name + "mlp."
        weights |= {
            name + "input_layernorm.weight": np.ones(HIDDEN, dtype=np.float32),
            name + "post_attention_layernorm.weight": np.ones(HIDDEN, dtype=np.float32),
            attention + "q_proj.weight": noise(HEADS * HEAD_DIM, HIDDEN, spread * QUERY_SCALE),
            attention + "k_proj.weight": noise(KV_HEADS * HEAD_DIM, HIDDEN, spread),
            attention + "v_proj.weight": noise(KV_HEADS * HEAD_DIM, HIDDEN, spread),
            attention + "o_proj.weight": update(HEADS * HEAD_DIM, spread * UPDATE_SCALE),
            mlp + "gate_proj.weight": noise(INTERMEDIATE, HIDDEN, spread * 2),
            mlp + "up_proj.weight": noise(INTERMEDIATE, HIDDEN, spread),
            mlp + "down_proj.weight": update(INTERMEDIATE, INTERMEDIATE**-0.5 * UPDATE_SCALE),
        }
    for layer in range(LAYERS):
        attention = f"model.layers.{layer}.self_attn."
        if family.qkv_bias:
            for part, heads in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
                weights[f"{attention}{part}_proj.bias"] = noise(1, heads * HEAD_DIM, BIAS_SCALE)[0]
        if family.qk_norm:  # the query's takes over what the size of its projection would have done
            weights[attention + "q_norm.weight"] = np.full(HEAD_DIM, QUERY_SCALE, dtype=np.float32)
            weights[attention + "k_norm.weight"] = np.ones(HEAD_DIM, dtype=np.float32)
    return weights


def kind_of_tokens(vocabulary: dict[str, int]) -> list[int]:
    """Index into KINDS of every token id."""
    owner = [KINDS.index("fragment")] * len(vocabulary)
    for kind, words in words_by_kind().items():
        for word in words:
            owner[vocabulary[spell(word)]] = KINDS.index(kind)
    for special in SPECIALS:
        owner[vocabulary[special]] = KINDS.index("eos" if special == EOS else "special")
    return owner


def follow_logits() -> Weights:
    """[kinds, kinds] float32: row = kind of the last token, column = kind of the next."""
    import numpy as np

    logits = np.full((len(KINDS), len(KINDS)), -KIND_LOGIT * LOGIT_SCALE, dtype=np.float32)
    for last, nexts in FOLLOWS.items():
        for kind, bonus in nexts.items():
            logits[KINDS.index(last), KINDS.index(kind)] = bonus * LOGIT_SCALE
    return logits
