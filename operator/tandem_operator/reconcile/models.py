"""What is known of a model: its shape from the spec, or from the config.json of its repository, read once per uri."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from tandem_operator.api.deployment import InferenceDeployment
from tandem_operator.performance.config_fields import ConfigError
from tandem_operator.performance.config_reader import read_shape
from tandem_operator.reconcile.errors import Waiting
from tandem_operator.reconcile.placing import Known

READABLE: Final = ("hf://", "http://", "https://")
RETRY_SECONDS: Final = 300.0
"""A repository that did not answer is asked again after this long: placement can do without it."""
ASKED_AT_ONCE: Final = 2
"""Repositories: one that keeps silent must not hold all workers of the loop."""
BUSY_SECONDS: Final = 1.0
REMEMBERED: Final = 1000
"""Models; the oldest are forgotten first."""

ADVICE: Final = "give model.config, or gpus"

log = logging.getLogger(__name__)

ReadConfig = Callable[[str], Awaitable[tuple[dict[str, Any], dict[str, Any] | None]]]
"""config.json and, where there is one, the index of safetensors, of a uri. Raises Unread."""


class Unread(Exception):
    """The repository does not give its config.json; says why."""


@dataclass(frozen=True)
class _Answer:
    known: Known
    until: float
    """Asked again from then on."""


class Models:
    """`clock` in seconds; without `read`, only what stands in specs is known."""

    def __init__(self, read: ReadConfig | None, clock: Callable[[], float]) -> None:
        self._read = read
        self._clock = clock
        self._answers: dict[str, _Answer] = {}
        self._asking: set[str] = set()

    def told(self, infd: InferenceDeployment) -> Known:
        """What is known without asking anybody."""
        model = infd.spec.model
        if model.config is not None:
            return _shape_of(infd.model_name, model.config, None, "model.config")
        if infd.spec.runtime.executor == "Emulated":
            return Known(None, "executor Emulated has no model: give model.config to place it by size")
        uri = model.uri or ""
        if uri in self._answers:
            return self._answers[uri].known
        if uri.startswith(READABLE):
            return Known(None, f"the config.json of {shown(uri)} was not read yet")
        return Known(None, f"the operator cannot read {shown(uri)}; {ADVICE} to place it by size")

    async def known(self, infd: InferenceDeployment) -> Known:
        """The same, once the repository was asked. Raises Waiting while others are, unless it answered before."""
        uri = infd.spec.model.uri or ""
        asks = infd.spec.model.config is None and infd.spec.runtime.executor == "Torch" and uri.startswith(READABLE)
        if asks and self._read and self._is_due(uri):
            if uri in self._asking or len(self._asking) >= ASKED_AT_ONCE:
                if uri in self._answers:
                    return self.told(infd)
                raise Waiting(f"the config.json of {shown(uri)} is read in a moment", BUSY_SECONDS)
            self._asking.add(uri)
            try:
                self._remember(uri, await self._ask(uri, self._read))
            finally:
                self._asking.discard(uri)
        return self.told(infd)

    def _is_due(self, uri: str) -> bool:
        return uri not in self._answers or self._clock() >= self._answers[uri].until

    async def _ask(self, uri: str, read: ReadConfig) -> Known:
        try:
            config, index = await read(uri)
        except Unread as error:
            log.info("the config.json of %s is not read: %s", shown(uri), error)
            return Known(None, f"the config.json of {shown(uri)} is not read: {error}; {ADVICE} to place it by size")
        return _shape_of(uri.rstrip("/").rsplit("/", 1)[-1], config, index, f"the config.json of {shown(uri)}")

    def _remember(self, uri: str, known: Known) -> None:
        old = self._answers.pop(uri, None)
        if known.shape is None and old and old.known.shape:
            known = old.known  # what was read once does not become unknown
        until = float("inf") if known.shape else self._clock() + RETRY_SECONDS
        self._answers[uri] = _Answer(known, until)
        while len(self._answers) > REMEMBERED:
            del self._answers[next(iter(self._answers))]


def shown(uri: str) -> str:
    """For logs and conditions: without the password or the signature that somebody wrote into it."""
    return re.sub(r"//[^/]*@", "//", uri, count=1).partition("?")[0] if uri.startswith("http") else uri


def _shape_of(name: str, config: dict[str, Any], index: dict[str, Any] | None, where: str) -> Known:
    try:
        return Known(read_shape(config, index, name=name))
    except ConfigError as error:
        return Known(None, f"{where} is not understood: {error}")
