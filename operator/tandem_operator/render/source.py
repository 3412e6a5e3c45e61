"""Where a pod finds its model: volumes, mounts, path, and the init container that brings or checks it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

CACHE_PATH: Final = "/models-cache"
CACHE_MODEL_PATH: Final = f"{CACHE_PATH}/model"
CLAIM_PATH: Final = "/models-claim"
CACHE_VOLUME: Final = "models-cache"
CLAIM_VOLUME: Final = "models-claim"


@dataclass(frozen=True)
class ModelSource:
    """What a pod needs to reach the model at `path`."""

    path: str
    fetch_arguments: list[str]
    volumes: list[dict[str, Any]] = field(default_factory=list)
    mounts: list[dict[str, Any]] = field(default_factory=list)
    fetch_mounts: list[dict[str, Any]] = field(default_factory=list)


def model_source(uri: str, tokenizer_only: bool) -> ModelSource:
    """`tokenizer_only`: a router needs tokenizer and configuration, not weights. ValueError: unknown uri."""
    scheme, _, rest = uri.partition("://")
    if scheme in ("hf", "http", "https"):
        mount: dict[str, Any] = {"name": CACHE_VOLUME, "mountPath": CACHE_PATH}
        return ModelSource(
            path=CACHE_MODEL_PATH,
            fetch_arguments=_fetch(uri, tokenizer_only),
            volumes=[{"name": CACHE_VOLUME, "emptyDir": {}}],
            mounts=[mount | {"readOnly": True}],
            fetch_mounts=[mount],
        )
    if scheme == "pvc":
        claim, _, folder = rest.partition("/")
        path = f"{CLAIM_PATH}/{folder.strip('/')}".rstrip("/")
        mount = {"name": CLAIM_VOLUME, "mountPath": CLAIM_PATH, "readOnly": True}
        source = {"claimName": claim, "readOnly": True}
        return ModelSource(
            path=path,
            fetch_arguments=_fetch(f"file://{path}", tokenizer_only),
            volumes=[{"name": CLAIM_VOLUME, "persistentVolumeClaim": source}],
            mounts=[mount],
            fetch_mounts=[mount],
        )
    if scheme == "file" and rest.startswith("/"):
        return ModelSource(path=rest.rstrip("/") or "/", fetch_arguments=_fetch(uri, tokenizer_only))
    raise ValueError(f"model.uri {uri!r} is none of hf://, http(s)://, pvc://claim/path, file:///path")


def _fetch(uri: str, tokenizer_only: bool) -> list[str]:
    """A file:// folder is only checked, where it is: nothing is copied."""
    arguments = ["fetch", uri, "--to", CACHE_MODEL_PATH]
    return [*arguments, "--only", "tokenizer"] if tokenizer_only else arguments
