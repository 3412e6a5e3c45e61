"""Typed reads of config.json, by any of the names a field has had; what is missing or odd is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

NESTED: Final = ("text_config", "llm_config", "language_config")
"""Where multimodal models keep their language part."""
OUTER: Final = ("architectures", "torch_dtype", "dtype", "quantization_config", "tie_word_embeddings")
"""Read from the outer level when the inner one says nothing."""

DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "gemma3_text": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
    },
    "gemma4_text": {"global_head_dim": 512},
}
"""What published configs of a family leave out, because its library fills it in."""


class ConfigError(ValueError):
    """What config.json lacks or says wrongly; the text names the field."""


class Fields:
    """config.json of the language model."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        inner = next((config[key] for key in NESTED if isinstance(config.get(key), Mapping)), None)
        self._values: Mapping[str, Any] = config
        if inner is not None:
            self._values = {**{key: config[key] for key in OUTER if key in config}, **inner}
        family = str(self._values.get("model_type") or "")
        self._values = {**DEFAULTS.get(family, {}), **self._values}

    def find(self, *names: str) -> Any:
        """The first of these that is set (null counts as not set), or None."""
        return next((self._values[name] for name in names if self._values.get(name) is not None), None)

    def count(self, *names: str, default: int | None = None, least: int = 1) -> int:
        """An integer of at least `least`; without default it must be there."""
        name = next((n for n in names if self._values.get(n) is not None), None)
        if name is None:
            if default is None:
                others = f" (nor {', '.join(names[1:])})" if names[1:] else ""
                raise ConfigError(f"config.json has no {names[0]}{others}")
            return default
        value = self._values[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < least:
            raise ConfigError(f"config.json: {name} must be an integer of at least {least}, is {value!r}")
        return int(value)

    def optional_count(self, *names: str) -> int:
        """0 when it is not set."""
        return self.count(*names, default=0, least=0)

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean."""
        value = self.find(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise ConfigError(f"config.json: {name} must be true or false, is {value!r}")
        return value

    def text(self, *names: str) -> str:
        """A string, empty when it is not set."""
        value = self.find(*names)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise ConfigError(f"config.json: {names[0]} must be a string, is {value!r}")
        return value

    def per_layer(self, name: str, layers: int) -> Sequence[Any] | None:
        """A list with an entry for each layer, or None."""
        value = self.find(name)
        if value is None:
            return None
        if not isinstance(value, list | tuple | str) or len(value) < layers:
            raise ConfigError(f"config.json: {name} must have an entry for each of the {layers} layers, is {value!r}")
        return value[:layers]

    @property
    def model_type(self) -> str:
        """As transformers names the family."""
        return self.text("model_type")
