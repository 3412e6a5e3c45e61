"""Chat messages as templates want them: text content as one string. No third-party imports."""

from __future__ import annotations

from typing import Any


class ChatTemplateError(ValueError):
    """The messages cannot be turned into a prompt: the client's mistake, not the model's."""


def flatten_content(message: dict[str, Any]) -> dict[str, Any]:
    """The message with a list of text parts joined by line ends. Raises ChatTemplateError for any other part."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    texts: list[str] = []
    for part in content:
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else part
        if not isinstance(text, str):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise ChatTemplateError(f"content part of type {kind!r}; this model takes text only")
        texts.append(text)
    return {**message, "content": "\n".join(texts)}
