"""JSON Schema of a pydantic model -> the structural OpenAPI schema that a CRD demands (no $ref, no null, no titles)."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

_DROPPED = ("examples", "title", "$defs")


def structural_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Schema of `model`, inlined; optional fields are absent, never null."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(schema, schema.get("$defs", {}))


def _convert(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    node = dict(node)
    if "$ref" in node:
        target = definitions[node.pop("$ref").rsplit("/", 1)[1]]
        return _convert({**target, **node}, definitions)
    if "anyOf" in node and "x-kubernetes-int-or-string" not in node:
        choices = [choice for choice in node.pop("anyOf") if choice != {"type": "null"}]
        if len(choices) != 1:
            raise ValueError(f"a CRD field has one type, not {choices}")
        return _convert({**choices[0], **node}, definitions)
    if node.get("default", ...) is None:
        del node["default"]
    for key in _DROPPED:
        node.pop(key, None)
    if "properties" in node:
        node["properties"] = {name: _convert(value, definitions) for name, value in node["properties"].items()}
        node.pop("additionalProperties", None)
    elif isinstance(node.get("additionalProperties"), dict):
        node["additionalProperties"] = _convert(node["additionalProperties"], definitions)
    elif "additionalProperties" in node:
        del node["additionalProperties"]
    if isinstance(node.get("items"), dict):
        node["items"] = _convert(node["items"], definitions)
    if "const" in node:
        node["enum"] = [node.pop("const")]
    return node
