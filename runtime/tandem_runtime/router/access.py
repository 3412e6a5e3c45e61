"""The first stage: whose key is it, and may it take one request more? Without a folder of keys the door is open."""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus

import msgspec

from tandem_runtime.contracts.pod_protocol import Submit
from tandem_runtime.openai.errors import ApiError
from tandem_runtime.openai.stages import Passage, Stage
from tandem_runtime.policy.allowance import Allowance, OverLimit
from tandem_runtime.router.key_folder import KeyFolder
from tandem_runtime.router.keys import ApiKey

BEARER = "bearer "


class Access(Stage):
    """`routers` says how many share the limits now. `clock` is monotonic seconds."""

    def __init__(
        self, keys: KeyFolder, routers: Callable[[], int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.keys = keys
        self.allowances: dict[str, Allowance] = {}
        """By name of the key, of those that were used."""
        self.refusals: dict[str, int] = {}
        """By reason."""
        self.routers = 1
        """As of the last refresh: asking all pods for each request would cost time."""
        self._count_routers = routers
        self._clock = clock

    def refresh(self) -> None:
        """Forgets what nobody needs. Call it every second, after `keys.look`."""
        self.routers = self._count_routers()
        now, known = self._clock(), self.keys.ring.keys
        gone = [name for name, each in self.allowances.items() if name not in known and not each.running]
        for name in [*gone, *(name for name, each in self.allowances.items() if each.idle(now))]:
            self.allowances.pop(name, None)

    def enter(self, passage: Passage) -> None:
        """401 without a valid key, 429 beyond its limits."""
        key = self._authenticate(passage)
        passage.record.key, passage.record.tenant = key.name, key.tenant_hash
        passage.default_class = key.entry.request_class
        now = self._clock()
        allowance = self.allowances.get(key.name)
        if allowance is None:
            allowance = self.allowances[key.name] = Allowance(key.entry.limits, self.routers, now)
        else:
            allowance.change(key.entry.limits, self.routers, now)
        over = allowance.start(now)
        if over is not None:
            raise self._too_many(over)
        passage.notes[self] = (key, allowance)

    def admit(self, passage: Passage, submit: Submit) -> Submit:
        """Its prompt counts, and its prefixes are its tenant's."""
        key, allowance = passage.notes[self]
        allowance.spend(len(submit.prompt_ids), self._clock())
        return msgspec.structs.replace(submit, tenant_salt=key.tenant_salt)

    def leave(self, passage: Passage) -> None:
        """What was answered counts, however it ended."""
        if self in passage.notes:
            _, allowance = passage.notes[self]
            allowance.spend(passage.record.all_output_tokens, self._clock())
            allowance.end()

    def _authenticate(self, passage: Passage) -> ApiKey:
        given = passage.headers.get("authorization", "")
        if not given:
            raise self._unknown("missing_api_key", "no API key: send it as `Authorization: Bearer KEY`")
        if given[: len(BEARER)].lower() != BEARER:
            raise self._unknown("invalid_api_key", "Authorization is not of the form `Bearer KEY`")
        key = self.keys.ring.find(given[len(BEARER) :].strip())
        if key is None and not self.keys.ring.keys:
            text = "this deployment has no valid API key at present; its operator has to put one into the Secret"
            raise self._unknown("no_api_keys", text)
        if key is None:
            raise self._unknown("invalid_api_key", "this API key is not valid here, or it was revoked")
        return key

    def _unknown(self, code: str, message: str) -> ApiError:
        self.refusals[code] = self.refusals.get(code, 0) + 1
        return ApiError(HTTPStatus.UNAUTHORIZED, message, "authentication_error", code)

    def _too_many(self, over: OverLimit) -> ApiError:
        self.refusals[over.reason] = self.refusals.get(over.reason, 0) + 1
        status, seconds = HTTPStatus.TOO_MANY_REQUESTS, over.retry_after_seconds
        return ApiError(status, over.message, "rate_limit_error", over.reason, retry_after_seconds=seconds)
