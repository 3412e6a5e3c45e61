"""Chat templates of Hugging Face models: Jinja in a sandbox, with the names and settings that templates rely on.

A template comes with the model, so it is foreign code: no attributes that start with an underscore, no mutation.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from tandem_runtime.text.messages import ChatTemplateError, flatten_content
from tandem_runtime.text.model_files import TokenizerError, read_json, read_special_tokens


class ChatTemplate:
    """One compiled template. `now` is the clock behind `strftime_now`."""

    def __init__(
        self,
        source: str,
        special_tokens: dict[str, str],
        origin: str = "chat template",
        now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> None:
        """Raises TokenizerError naming `origin` when the template does not compile."""
        self._special_tokens = special_tokens
        environment = _make_environment(now)
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise TokenizerError(f"{origin}: the chat template does not compile: {error}") from error

    def render(self, messages: list[dict[str, Any]], add_generation_prompt: bool = True) -> str:
        """The prompt as text. Raises ChatTemplateError when the template refuses the messages or fails on them."""
        variables = {**self._special_tokens, "tools": None, "documents": None}
        try:
            return self._template.render(
                messages=[flatten_content(message) for message in messages],
                add_generation_prompt=add_generation_prompt,
                **variables,
            )
        except ChatTemplateError:
            raise
        except Exception as error:  # foreign code: whatever it raises is its answer to these messages
            raise ChatTemplateError(f"the model's chat template refuses these messages: {error}") from error


def read_chat_template(model_dir: Path) -> ChatTemplate | None:
    """The template of chat_template.jinja, else of tokenizer_config.json; None when there is none."""
    special_tokens = read_special_tokens(model_dir)
    path = model_dir / "chat_template.jinja"
    try:
        return ChatTemplate(path.read_text(encoding="utf-8"), special_tokens, str(path))
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"{path} cannot be read: {error}") from error
    path = model_dir / "tokenizer_config.json"
    source = read_json(path).get("chat_template")
    if isinstance(source, list):
        named = {entry.get("name"): entry.get("template") for entry in source if isinstance(entry, dict)}
        source = named.get("default")
    if source is None:
        return None
    if not isinstance(source, str):
        raise TokenizerError(f"{path}: chat_template is a {type(source).__name__}; expected is a string")
    return ChatTemplate(source, special_tokens, str(path))


def _make_environment(now: Callable[[], datetime]) -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlocks, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: now().strftime(form)
    environment.globals["namespace"] = _GuardedNamespace
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML, which models have not seen in training."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


class _GuardedNamespace(Namespace):
    """`namespace()` without names that start with an underscore: those would lead out of the sandbox."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        values = dict(*rest, **kwargs)
        for name in values:
            _refuse_underscore(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_underscore(name)
        super().__setitem__(name, value)


def _refuse_underscore(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a chat template must not set {name!r} on a namespace")


class _GenerationBlocks(Extension):
    """`{% generation %}` marks assistant text for training; for serving it is its content."""

    tags = {"generation"}  # noqa: RUF012 - the name and form that Jinja asks for

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
