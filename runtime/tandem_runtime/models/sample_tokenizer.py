"""The sample model's tokenizer: a byte-level BPE whose merges are trained here, in pure Python, on the sample words.

Trained here and not by a library, so that the same bytes come out whatever versions are installed.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from tandem_runtime.models.sample_words import BOS, EOS, SPECIALS, words_by_kind

Merges = list[tuple[str, str]]

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def byte_symbols() -> list[str]:
    """The printable character that stands for each byte, as every byte-level BPE since GPT-2 has it."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(hidden)) for byte in range(256)]


def train_merges(words: list[str]) -> Merges:
    """Merges, most frequent pair first (ties: smallest), until every word is one symbol."""
    spellings = [list(word) for word in words]
    counts: Counter[tuple[str, str]] = Counter()
    holders: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for index, spelling in enumerate(spellings):
        _count(spelling, index, counts, holders, 1)
    merges: Merges = []
    while True:
        best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        if best is None or counts[best] <= 0:
            return merges
        merges.append(best)
        for index in sorted(holders.pop(best)):
            _count(spellings[index], index, counts, holders, -1)
            spellings[index] = _merge(spellings[index], best)
            _count(spellings[index], index, counts, holders, 1)
        counts = +counts


def _count(
    spelling: list[str],
    index: int,
    counts: Counter[tuple[str, str]],
    holders: defaultdict[tuple[str, str], set[int]],
    step: int,
) -> None:
    for pair in pairwise(spelling):
        counts[pair] += step
        if step > 0:
            holders[pair].add(index)


def _merge(spelling: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    position = 0
    while position < len(spelling):
        if tuple(spelling[position : position + 2]) == pair:
            merged.append("".join(pair))
            position += 2
        else:
            merged.append(spelling[position])
            position += 1
    return merged


def build_vocabulary() -> tuple[dict[str, int], Merges]:
    """Symbol -> id (bytes, then merges, then special tokens) and the merges in order."""
    symbols = byte_symbols()
    words = sorted({spell(word) for words in words_by_kind().values() for word in words})
    merges = train_merges(words)
    vocabulary = dict.fromkeys([*sorted(symbols), *("".join(merge) for merge in merges), *SPECIALS])
    return {symbol: index for index, symbol in enumerate(vocabulary)}, merges


def spell(text: str) -> str:
    """`text` in byte symbols: " fox" is "Ġfox"."""
    symbols = byte_symbols()
    return "".join(symbols[byte] for byte in text.encode())


def write_tokenizer(
    directory: Path, vocabulary: dict[str, int], merges: list[tuple[str, str]], max_tokens: int
) -> None:
    """Writes tokenizer.json and tokenizer_config.json into `directory`."""
    words = {symbol: index for symbol, index in vocabulary.items() if symbol not in SPECIALS}
    added = [
        {"id": vocabulary[special], "content": special, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for special in SPECIALS
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    bos = {"SpecialToken": {"id": BOS, "type_id": 0}}
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}, bos, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {BOS: {"id": BOS, "ids": [vocabulary[BOS]], "tokens": [BOS]}},
        },
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": words,
            "merges": [list(merge) for merge in merges],
        },
    }
    write_json(directory / "tokenizer.json", tokenizer)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "add_bos_token": True,
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_tokens,
        "chat_template": CHAT_TEMPLATE,
    }
    write_json(directory / "tokenizer_config.json", settings)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes `content` with a fixed spelling, so that equal contents are equal bytes."""
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
