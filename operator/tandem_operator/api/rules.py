"""CEL rules of the CRD: what the API server refuses, each with a sentence that a person can act on."""

from __future__ import annotations

from typing import Any, Final

from tandem_operator.api import names

NAME_PATTERN: Final = "^[a-z]([-a-z0-9]*[a-z0-9])?$"
DURATION: Final = "^([0-9]+(ms|s|m|h))+$"


def rule(expression: str, message: str, **more: Any) -> dict[str, Any]:
    return {"rule": expression, "message": message, **more}


def validations(*rules: dict[str, Any]) -> dict[str, Any]:
    return {"x-kubernetes-validations": list(rules)}


QUANTITIES_RULE: Final = rule(
    "self.all(k, type(self[k]) == int || isQuantity(self[k]))",
    "amounts of resources must be quantities such as 500m, 2 or 16Gi",
)
NAME_RULE: Final = rule(
    "self.matches('^[A-Za-z0-9]([A-Za-z0-9._:/-]*[A-Za-z0-9])?$')",
    "model.name is what clients send as `model`: letters, digits and . _ : / - between them, such as org/chat-8b",
)
IMAGE_RULE: Final = rule(
    "!self.matches('[ \\t\\r\\n]')", "image must be a reference such as registry/name:tag, without blanks"
)
DURATION_RULE: Final = rule(f"self.matches('{DURATION}')", "must be a duration such as 30s, 2m or 1h30m")
POSITIVE_DURATION_RULE: Final = rule(
    f"!self.matches('{DURATION}') || duration(self) > duration('0s')", "no request can be served in no time: give more"
)
CLASS_NAME_RULE: Final = rule(
    "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
    "a class of requests is named by lower-case letters, digits and - between them, such as interactive",
)
SECRET_NAME_RULE: Final = rule(
    "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
    "apiKeysSecret.name is the name of a Secret: lower-case letters, digits, - and .",
)

URI_RULES: Final = (
    rule(
        "['hf://', 'http://', 'https://', 'pvc://', 'file:///'].exists(p, self.startsWith(p))",
        "uri must start with hf://, http://, https://, pvc:// or file:/// (an absolute path in the image)",
    ),
    rule(
        "!self.startsWith('hf://') || self.matches('^hf://[^/@]+/[^/@]+(@[^@]+)?$')",
        "a Hugging Face uri is hf://organisation/repository or hf://organisation/repository@revision",
    ),
    rule(
        "!self.startsWith('pvc://') || self.matches('^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/.*)?$')",
        "a volume uri is pvc://claim/path, where claim is a PersistentVolumeClaim in the same namespace",
    ),
    rule(
        "!self.startsWith('http') || self.matches('^https?://[^/]+/.*$')",
        "a web uri is http(s)://host/folder/, the folder that holds config.json",
    ),
    rule(
        "!self.matches('[ \\t\\r\\n]') && !self.matches('/[.][.](/|$)')",
        "uri must not hold blanks, nor .. as a folder: write the path that is meant",
    ),
)

TEMPLATE_LABELS_RULE: Final = rule(
    "!has(self.metadata) || !has(self.metadata.labels) || self.metadata.labels.all(k, !k.startsWith('tandem.dev/')"
    " && !(k in ['"
    + "', '".join(sorted(label for label in names.RESERVED_LABELS if not label.startswith("tandem.dev/")))
    + "']))",
    "template.metadata.labels must not set tandem.dev/*, llm-d.ai/role or app.kubernetes.io/{name,instance,managed-by}:"
    " selectors rely on them; choose another key",
)

POOL_RULES: Final = (
    rule(
        "!has(self.gpus) || !has(self.tensorParallel) || self.gpus % self.tensorParallel == 0",
        "gpus must be a multiple of tensorParallel: every pipeline stage takes that many; remove one of the two",
    ),
)

ONE_DEVICE: Final = (
    "!has(self.{0}.gpus) || self.{0}.gpus <= 1) && (!has(self.{0}.tensorParallel) || self.{0}.tensorParallel == 1"
)

NO_DEVICE: Final = (
    "(!has(self.{0}.gpus) || self.{0}.gpus == 0) && (!has(self.{0}.hardwareClasses) ||"
    " size(self.{0}.hardwareClasses) == 0)"
)

SPEC_RULES: Final = (
    rule(
        "self.runtime.executor != 'Torch' || (("
        + ") && (".join(ONE_DEVICE.format(role) for role in names.POOL_ROLES)
        + "))",
        "runtime.executor Torch of this version runs a replica on one device: remove gpus and tensorParallel above 1,"
        " or set executor to Emulated",
    ),
    rule(
        "self.runtime.executor != 'Torch' || self.model.quantization in ['None', 'Int8Dynamic']",
        "runtime.executor Torch of this version runs weights as the checkpoint stores them, or Int8Dynamic on CPUs: set"
        " model.quantization to one of the two, or executor to Emulated",
    ),
    rule(
        "self.runtime.executor != 'Torch' || self.model.quantization != 'Int8Dynamic' || ("
        + " && ".join(NO_DEVICE.format(role) for role in names.POOL_ROLES)
        + ")",
        "runtime.executor Torch of this version runs Int8Dynamic on CPUs alone: remove gpus (or set 0) and"
        " hardwareClasses of both pools, or set model.quantization to None",
    ),
    rule(
        "self.runtime.executor != 'Torch' || (has(self.model.uri) && size(self.model.uri) > 0)",
        "model.uri is required with runtime.executor Torch; give one such as file:///models/tiny, or set executor to"
        " Emulated to run without a model",
    ),
    rule(
        "self.runtime.executor != 'Emulated' || !has(self.model.uri)",
        "runtime.executor Emulated loads no model: remove model.uri, or set executor to Torch",
    ),
    rule(
        "self.runtime.executor == 'Emulated' || !has(self.runtime.emulated)",
        "runtime.emulated is read only with runtime.executor Emulated: remove it, or set executor to Emulated",
    ),
)

ROOT_RULES: Final = (
    rule(
        f"size(self.metadata.name) <= {names.NAME_LIMIT}",
        f"metadata.name must have at most {names.NAME_LIMIT} characters, so that the names of its Deployments and"
        " Services (NAME-prefill-REVISION) fit 63",
    ),
    rule(
        f"self.metadata.name.matches('{NAME_PATTERN}')",
        "metadata.name must begin with a lower-case letter and hold only lower-case letters, digits and hyphens,"
        " because a Service is named after it",
    ),
)
