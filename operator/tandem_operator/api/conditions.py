"""Condition types and reasons: every constant that a person or a program may match, in one place."""

from __future__ import annotations

from typing import Final

ACCEPTED: Final = "Accepted"
PLACED: Final = "Placed"
PREFILL_AVAILABLE: Final = "PrefillAvailable"
DECODE_AVAILABLE: Final = "DecodeAvailable"
ROUTER_AVAILABLE: Final = "RouterAvailable"
PROGRESSING: Final = "Progressing"
REPLICAS_OVERRIDDEN: Final = "ReplicasOverridden"
READY: Final = "Ready"

TYPES: Final = (
    ACCEPTED,
    PLACED,
    PREFILL_AVAILABLE,
    DECODE_AVAILABLE,
    ROUTER_AVAILABLE,
    PROGRESSING,
    REPLICAS_OVERRIDDEN,
    READY,
)
AVAILABLE_OF_ROLE: Final = {"prefill": PREFILL_AVAILABLE, "decode": DECODE_AVAILABLE, "router": ROUTER_AVAILABLE}


class Reason:
    """Reasons, PascalCase. A comment says when, where the name alone does not."""

    # Accepted
    VALID = "Valid"
    INVALID_SPEC = "InvalidSpec"
    INVALID_TEMPLATE = "InvalidTemplate"
    NAME_TAKEN = "NameTaken"  # an object with a child's name exists and belongs to somebody else
    REFUSED_BY_API_SERVER = "RefusedByApiServer"
    FORBIDDEN = "Forbidden"  # a quota, a policy or a missing right of the operator

    # Placed
    CHOSEN = "Chosen"
    ANY_NODE = "AnyNode"  # no device is asked for: none is there, or the model is not known
    AS_ASKED = "AsAsked"  # the model is not known, the user said how many devices
    NO_FIT = "NoFit"  # nothing that the user allows can work

    # *Available
    WAITING_FOR_CAPACITY = "WaitingForCapacity"  # Unschedulable, and placement knows that there is no room
    AVAILABLE = "Available"
    PODS_STARTING = "PodsStarting"
    NOT_CREATED = "NotCreated"

    # Problems of pods, also the reason of Ready and Progressing
    CRASH_LOOP = "CrashLoopBackOff"
    CONFIG_REFUSED = "ConfigRefused"  # the runtime exits with code 2
    API_KEYS_MISSING = "ApiKeysMissing"  # the runtime exits with code 4: no Secret, or no valid key in it
    MODEL_NOT_LOADED = "ModelNotLoaded"  # the runtime exits with code 3
    MODEL_NOT_FETCHED = "ModelNotFetched"
    OUT_OF_MEMORY = "OutOfMemory"
    IMAGE_MISSING = "ImageMissing"
    UNSCHEDULABLE = "Unschedulable"
    POD_CONFIG = "PodConfigError"  # what the pod needs is not there: a ConfigMap, a command in its image ...
    PODS_REFUSED = "PodsRefused"  # quota, Pod Security or a webhook refuses the pods

    # Progressing
    ROLLING_OUT = "RollingOut"
    ROLLOUT_COMPLETE = "RolloutComplete"

    # ReplicasOverridden
    NOT_OVERRIDDEN = "NotOverridden"
    CHILD_EDITED = "ChildEdited"
    CHILD_DELETED = "ChildDeleted"

    # Ready
    SERVING = "Serving"


POD_PROBLEMS: Final = (
    Reason.PODS_REFUSED,
    Reason.IMAGE_MISSING,
    Reason.POD_CONFIG,
    Reason.MODEL_NOT_FETCHED,
    Reason.MODEL_NOT_LOADED,
    Reason.API_KEYS_MISSING,
    Reason.CONFIG_REFUSED,
    Reason.OUT_OF_MEMORY,
    Reason.CRASH_LOOP,
    Reason.UNSCHEDULABLE,
)
"""From the most to the least specific: the first one found is the reason of its pool."""
