"""spec of an InferenceDeployment. Every field has a description: `kubectl explain` is the reference."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from tandem_runtime.contracts.coefficients import BUNDLED
from tandem_runtime.contracts.flags import DRAFT_TOKENS, MOST_DRAFT_TOKENS

from tandem_operator.api import rules

HardwareClassName = Literal["a100-sxm4-80gb", "h100-sxm", "l40s", "laptop"]
assert HardwareClassName.__args__ == BUNDLED, "the enum of hardware classes is the list of bundled coefficients"  # type: ignore[attr-defined]

Quantity = Annotated[
    int | str,
    Field(
        json_schema_extra={
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "maxLength": 64,
        }
    ),
]


class ApiModel(BaseModel):
    """camelCase outside, snake_case inside; unknown fields are the API server's to refuse, so they are ignored here."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class Resources(ApiModel):
    """CPU, memory and devices of a container, as in a Pod."""

    limits: dict[str, Quantity] = Field(
        default_factory=dict,
        description="Most that each container may use, by resource name (cpu, memory, nvidia.com/gpu ...).",
        json_schema_extra={"maxProperties": 32, **rules.validations(rules.QUANTITIES_RULE)},
    )
    requests: dict[str, Quantity] = Field(
        default_factory=dict,
        description="What the scheduler reserves for each container. Absent: equal to limits.",
        json_schema_extra={"maxProperties": 32, **rules.validations(rules.QUANTITIES_RULE)},
    )


def _free_object(description: str) -> dict[str, Any]:
    return {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "description": description}


TEMPLATE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "metadata": {
            "type": "object",
            "description": "Labels and annotations added to the pods.",
            "properties": {
                "labels": {
                    "type": "object",
                    "description": "Added labels. Those that selectors rely on cannot be set.",
                    "additionalProperties": {"type": "string", "maxLength": 63},
                    "maxProperties": 64,
                },
                "annotations": {
                    "type": "object",
                    "description": "Added annotations.",
                    "additionalProperties": {"type": "string"},
                    "maxProperties": 64,
                },
            },
        },
        "spec": _free_object(
            "Fields of a pod's spec, merged into ours: nodeSelector, tolerations, affinity, volumes, imagePullSecrets,"
            " terminationGracePeriodSeconds, runtimeClassName ... The main container is named `runtime`, the one that"
            " brings the model `fetch`: name them to add env or volumeMounts."
        ),
    },
    **rules.validations(rules.TEMPLATE_LABELS_RULE),
}

_RESOURCES: Any = Field(
    default_factory=Resources,
    description=(
        "CPU, memory and devices of the main container, and of the one that brings the model. limits.cpu also sets how"
        " many threads compute."
    ),
)
_TEMPLATE: Any = Field(
    default_factory=dict,
    description=(
        "Override of the pods, merged as `kubectl patch --type=strategic` would: maps by key, lists of containers, env,"
        " volumes and mounts by name, tolerations added to ours, other lists replaced, null removes. It must leave the"
        " `runtime` container, its command, args and ports, and the labels of our selectors in place."
    ),
    json_schema_extra=TEMPLATE_SCHEMA,
)


class Ttft(ApiModel):
    """Bound of the time to the first token: base, and more for long prompts."""

    base: str = Field(
        description="For every prompt, such as 1s or 800ms.",
        max_length=32,
        json_schema_extra=rules.validations(rules.DURATION_RULE, rules.POSITIVE_DURATION_RULE),
    )
    per_thousand_tokens: str | None = Field(
        default=None,
        description="Added per thousand prompt tokens, such as 60ms. Absent: nothing.",
        max_length=32,
        json_schema_extra=rules.validations(rules.DURATION_RULE),
    )


class Slo(ApiModel):
    """Objectives of one class of requests."""

    name: str = Field(
        alias="class",
        description="Name of the class: what clients send in the header x-tandem-class.",
        min_length=1,
        max_length=63,
        json_schema_extra=rules.validations(rules.CLASS_NAME_RULE),
    )
    ttft: Ttft = Field(description="Time from the whole request to the first token.")
    tpot: str = Field(
        description="Mean time per output token after the first, such as 50ms.",
        max_length=32,
        json_schema_extra=rules.validations(rules.DURATION_RULE, rules.POSITIVE_DURATION_RULE),
    )
    attainment_percent: int = Field(
        default=99,
        description="Share of requests that must meet both.",
        ge=50,
        le=99,
        json_schema_extra={"format": "int32"},
    )
    priority: int = Field(
        default=0,
        description="Requests of a class with a higher number go first, as long as they can still meet the objective.",
        ge=-1000,
        le=1000,
        json_schema_extra={"format": "int32"},
    )


MODEL_CONFIG_SCHEMA: dict[str, Any] = _free_object(
    "The model's config.json, for placement where the operator cannot read it itself: from a claim, from an image, or"
    " with executor Emulated, which loads no model. With hf:// and http(s):// it is read from there. Nothing is served"
    " from it."
)


class Model(ApiModel):
    """The model that is served."""

    name: str | None = Field(
        default=None,
        description="Name that clients send as `model`. Default: metadata.name.",
        min_length=1,
        max_length=200,
        json_schema_extra=rules.validations(rules.NAME_RULE),
    )
    uri: str | None = Field(
        default=None,
        description=(
            "Where the weights are: hf://organisation/repository[@revision] (Hugging Face hub), http(s)://host/folder/"
            " (a folder with config.json), pvc://claim/path (a volume in this namespace, mounted read-only), or"
            " file:///path (baked into the runtime image; ours holds file:///models/tiny). Required with executor"
            " Torch. A change starts new pools beside the old and moves traffic when they are ready."
        ),
        min_length=1,
        max_length=1024,
        json_schema_extra=rules.validations(*rules.URI_RULES),
    )
    max_context_tokens: int | None = Field(
        default=None,
        description="Longest prompt plus answer, in tokens. Default: the model's own limit.",
        ge=16,
        le=16_777_216,
        json_schema_extra={"format": "int32"},
    )

    config: dict[str, Any] | None = Field(default=None, json_schema_extra=MODEL_CONFIG_SCHEMA)
    quantization: Literal["None", "Int8Dynamic", "Int8", "Int4", "FP8", "Auto"] = Field(
        default="None",
        description=(
            "How weights are held. None: as the checkpoint stores them. Int8Dynamic: weights and activations in 8 bit;"
            " Int8 and Int4: weights only; Auto: the cheapest that meets the objectives, never 4 bit. Executor Torch"
            " of this version runs None, and Int8Dynamic on CPUs, and refuses the others; Emulated takes the time that"
            " each would."
        ),
    )


class Pool(ApiModel):
    """One pool of model pods."""

    model_config = ConfigDict(json_schema_extra=rules.validations(*rules.POOL_RULES))

    replicas: int = Field(
        default=1,
        description="How many pods. The operator owns the count of its Deployments: change it here, not there.",
        ge=1,
        le=1000,
        json_schema_extra={"format": "int32"},
    )
    hardware_classes: list[str] = Field(
        default_factory=list,
        description=(
            "HardwareClasses (kubectl get hardwareclasses) that the pods may run on. Absent: those that meet the"
            " objectives at the lowest cost."
        ),
        max_length=16,
        json_schema_extra={
            "x-kubernetes-list-type": "set",
            "items": {"type": "string", "minLength": 1, "maxLength": 63},
        },
    )
    gpus: int | None = Field(
        default=None,
        description=(
            "Devices of one pod, all on one node. Absent: the operator chooses, if it knows the model (see"
            " model.config) and there are devices; else none, and the pods run on the CPU of any node, as with 0."
        ),
        ge=0,
        le=64,
        json_schema_extra={"format": "int32"},
    )
    tensor_parallel: int | None = Field(
        default=None,
        description=(
            "Devices that share every layer. Absent: the operator chooses. Executor Torch of this version runs 1 and"
            " refuses more; Emulated takes the time that they would."
        ),
        ge=1,
        le=64,
        json_schema_extra={"format": "int32"},
    )
    resources: Resources = _RESOURCES
    template: dict[str, Any] = _TEMPLATE


class ApiKeysSecret(ApiModel):
    """The Secret with the API keys that routers accept."""

    name: str = Field(
        description=(
            "Name of a Secret in the same namespace, with one entry for each API key, named after the key. An entry is"
            ' JSON: hash ("sha256:" and 64 hex digits) and, where wanted, class (of requests that name none), tenant'
            " (keys of one tenant share cached prompts; default: each key is its own), maxConcurrent,"
            " requestsPerMinute and tokensPerMinute (over all routers together; default: no limit). The keys"
            " themselves stand nowhere. `tandem-runtime keys new NAME` makes a key and prints its entry."
        ),
        min_length=1,
        max_length=253,
        json_schema_extra=rules.validations(rules.SECRET_NAME_RULE),
    )


class Router(ApiModel):
    """The pods that clients talk to."""

    replicas: int = Field(
        default=1, description="How many router pods.", ge=1, le=100, json_schema_extra={"format": "int32"}
    )
    wait_for_pods: str = Field(
        default="120s",
        description="How long a request waits for a model pod when none is ready (then 503), as 30s, 2m or 1h30m.",
        max_length=32,
        json_schema_extra=rules.validations(rules.DURATION_RULE),
    )
    api_keys_secret: ApiKeysSecret | None = Field(
        default=None,
        description=(
            "Ask clients for an API key (Authorization: Bearer KEY); without it whoever reaches the Service may ask."
            " Edits of the Secret count within about a minute, without a restart. While it is missing or holds no"
            " valid key, nobody is let in, and RouterAvailable says why."
        ),
    )
    resources: Resources = _RESOURCES
    template: dict[str, Any] = _TEMPLATE


class Emulated(ApiModel):
    """Settings of executor Emulated."""

    hardware_class: HardwareClassName = Field(
        default="h100-sxm", description="Whose speed is emulated: the name of a bundled set of coefficients."
    )


class Speculation(ApiModel):
    """Guesses at an answer's next tokens, checked several at once."""

    method: Literal["NGram"] = Field(
        default="NGram",
        description="NGram: what followed the same words earlier in the prompt or in the answer.",
    )
    draft_tokens: int = Field(
        default=DRAFT_TOKENS,
        description="Longest guess. On a CPU a step that checks 8 tokens takes half as long again as one of 1.",
        ge=1,
        le=MOST_DRAFT_TOKENS,
        json_schema_extra={"format": "int32"},
    )


class Runtime(ApiModel):
    """The program in the pods."""

    image: str | None = Field(
        default=None,
        description=(
            "Image of router and model pods. Default: the one that the operator was installed with at the time when"
            " the revision was made; a newer default restarts no running pod, and the next revision takes it."
        ),
        min_length=1,
        max_length=512,
        json_schema_extra=rules.validations(rules.IMAGE_RULE),
    )
    executor: Literal["Torch", "Emulated"] = Field(
        default="Torch",
        description=(
            "Torch loads the model and computes. Emulated loads nothing, takes the time that the performance model"
            " predicts and answers with deterministic tokens: for trying out fleets without GPUs."
        ),
    )
    emulated: Emulated | None = Field(default=None, description="Settings of executor Emulated.")
    speculation: Speculation | None = Field(
        default=None,
        description=(
            "Let decode pods check guesses at the next tokens while few requests decode; {} is enough. Answers stay"
            " what they are; text that repeats its prompt takes fewer steps. A change rolls through the decode pods,"
            " and starts no new revision. Absent: off."
        ),
    )


class InferenceDeploymentSpec(ApiModel):
    """What to serve and with how many pods."""

    model_config = ConfigDict(json_schema_extra=rules.validations(*rules.SPEC_RULES))

    model: Model = Field(
        default_factory=Model, description="The model that is served.", json_schema_extra={"default": {}}
    )
    slo: list[Slo] = Field(
        default_factory=list,
        description=(
            "Objectives by class of requests; the first is that of requests that name none. Routers order their queue"
            " by them and count what met them; placement meets all of them. Absent: routers serve in order of arrival,"
            " and placement assumes a first token within 2s and 50ms per token for 99 % of requests."
        ),
        max_length=8,
        json_schema_extra={
            "default": [],
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["class"],
        },
    )
    prefill: Pool = Field(
        default_factory=Pool,
        description="Pods that compute the KV pages of prompts and hand them to decode pods.",
        json_schema_extra={"default": {}},
    )
    decode: Pool = Field(
        default_factory=Pool,
        description="Pods that receive KV pages and generate the answers.",
        json_schema_extra={"default": {}},
    )
    router: Router = Field(
        default_factory=Router,
        description="The OpenAI-compatible front: queues, chooses a prefill and a decode pod, streams the answer.",
        json_schema_extra={"default": {}},
    )
    runtime: Runtime = Field(
        default_factory=Runtime,
        description="The program in the pods: image and executor.",
        json_schema_extra={"default": {}},
    )
