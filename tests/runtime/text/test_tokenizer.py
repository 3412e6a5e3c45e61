"""A model folder's tokenizer: the same ids as transformers, errors that name the file."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tandem_runtime.text.tokenizer import LONG_TEXT_CHARACTERS, ChatTemplateError, TokenizerError, load_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

LLAMA_3 = """{%- for message in messages %}
    {%- if loop.first %}{{ bos_token }}{% endif %}
    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}
"""
CHATML = """{% set ns = namespace(last=-1) %}
{% for message in messages %}
{% if loop.first and message.role != 'system' %}
<|im_start|>system
You help. Tools: {{ {"a": "<é>"} | tojson }}<|im_end|>
{% endif %}
{% if message.role == 'tool' %}{% continue %}{% endif %}
{% if message.role not in ['system', 'user', 'assistant'] %}{{ raise_exception('no role ' + message.role) }}{% endif %}
<|im_start|>{{ message.role }}
{% generation %}{{ message.content }}{% endgeneration %}<|im_end|>
{% set ns.last = loop.index0 %}
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}{% if ns.last > 99 or tools %}many{% endif %}"""
DATED = (
    "{{ bos_token }}{{ strftime_now('%Y') | length }}{% for m in messages %}{{ m.content }}{% endfor %}{{ eos_token }}"
)
SPECIALS = ["<|begin|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>"]
CONVERSATION = [
    {"role": "user", "content": "  What is a page?\n"},
    {"role": "assistant", "content": "16 tokens — or 32."},
    {"role": "user", "content": "Naïve 解码 <b>"},
]


def make_folder(folder: Path, **config: Any) -> Path:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.train_from_iterator(
        ["What is a page of tokens?"],
        trainers.BpeTrainer(vocab_size=280, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False),
    )
    inner.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    begin = inner.token_to_id(SPECIALS[0])
    inner.post_processor = processors.TemplateProcessing(
        single=f"{SPECIALS[0]} $A", special_tokens=[(SPECIALS[0], begin)]
    )
    inner.enable_truncation(4)
    inner.save(str(folder / "tokenizer.json"))
    content = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIALS[0],
        "eos_token": {"__type": "AddedToken", "content": "<|eot_id|>", "special": True},
        **config,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    return folder


async def test_a_long_text_gives_the_same_ids_and_leaves_the_event_loop_free(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(make_folder(tmp_path))
    sentence = "What is a page of tokens? Naïve 解码.\n"
    assert len(sentence) < LONG_TEXT_CHARACTERS < len(sentence * 8_000)
    encoding = asyncio.create_task(asyncio.to_thread(tokenizer.encode, sentence * 8_000))
    turns = 0
    while not encoding.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 20, "with the interpreter's lock held there would be two or three"
    first, *one = tokenizer.encode(sentence)
    assert await encoding == [first, *one * 8_000]


@pytest.mark.parametrize("in_file", [True, False], ids=["jinja-file", "config"])
@pytest.mark.parametrize("template", [LLAMA_3, CHATML, DATED], ids=["llama-3", "chatml", "dated"])
def test_a_chat_becomes_the_same_ids_as_in_transformers(tmp_path: Path, template: str, in_file: bool) -> None:
    import transformers

    make_folder(tmp_path, **({} if in_file else {"chat_template": template}))
    if in_file:
        (tmp_path / "chat_template.jinja").write_text(template)
    reference = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    want = reference.apply_chat_template(CONVERSATION, add_generation_prompt=True, return_dict=False, truncation=False)
    tokenizer = load_tokenizer(tmp_path)
    got = tokenizer.apply_chat_template(CONVERSATION)
    assert got == want
    assert "What is a page?" in tokenizer.decode(got)


def test_a_prompt_gets_its_first_token_once_and_is_never_truncated(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(make_folder(tmp_path, chat_template=LLAMA_3))
    begin = tokenizer.encode("")[0]
    assert tokenizer.encode("a page of tokens " * 50).count(begin) == 1
    assert tokenizer.apply_chat_template(CONVERSATION).count(begin) == 1
    text = "a page of tokens 解码 " * 50
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.vocab_size == max(tokenizer.encode("".join(SPECIALS))) + 1


def test_a_lone_surrogate_does_not_fail(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(make_folder(tmp_path))
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a?b"


@pytest.mark.parametrize(
    ("files", "want"),
    [
        ({"generation_config.json": {"eos_token_id": [7, 9]}, "config.json": {"eos_token_id": 7}}, {7, 9}),
        ({"generation_config.json": {}, "config.json": {"eos_token_id": 7}}, {7}),
        ({"config.json": {"eos_token_id": None}}, None),
    ],
)
def test_end_of_text_ids_come_from_the_first_file_that_says_them(
    tmp_path: Path, files: dict[str, Any], want: set[int] | None
) -> None:
    make_folder(tmp_path)
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.eos_token_ids == (want or {tokenizer.encode("<|eot_id|>", add_special_tokens=False)[0]})


def test_several_named_templates_mean_the_default_one(tmp_path: Path) -> None:
    templates = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "a page"}]
    tokenizer = load_tokenizer(make_folder(tmp_path, chat_template=templates))
    assert tokenizer.decode(tokenizer.apply_chat_template(CONVERSATION)) == "a page"


@pytest.mark.parametrize(
    ("template", "message", "words"),
    [
        (CHATML, {"role": "robot", "content": "x"}, "no role robot"),
        (CHATML, {"role": "user", "content": [{"type": "image_url"}]}, "image_url"),
        ("{{ messages[0].content + 1 }}", {"role": "user", "content": "x"}, "refuses"),
        ("{{ messages.append(1) }}", {"role": "user", "content": "x"}, "refuses"),
        ("{{ ''.__class__.__mro__ }}", {"role": "user", "content": "x"}, "refuses"),
        ("{% set n = namespace(__class__=1) %}", {"role": "user", "content": "x"}, "refuses"),
        (None, {"role": "user", "content": "x"}, "no chat template"),
    ],
)
def test_messages_that_a_template_refuses_are_the_clients_mistake(
    tmp_path: Path, template: str | None, message: dict[str, Any], words: str
) -> None:
    tokenizer = load_tokenizer(make_folder(tmp_path, **({"chat_template": template} if template else {})))
    with pytest.raises(ChatTemplateError, match=words):
        tokenizer.apply_chat_template([message])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", None),
        ("tokenizer.json", "{"),
        ("tokenizer_config.json", "["),
        ("tokenizer_config.json", '{"chat_template": "{% if %}"}'),
        ("tokenizer_config.json", '{"chat_template": 3}'),
        ("chat_template.jinja", "{% for %}"),
        ("generation_config.json", '{"eos_token_id": "x"}'),
        ("config.json", "[]"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, name: str, content: str | None) -> None:
    make_folder(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(TokenizerError, match=name):
        load_tokenizer(tmp_path)
