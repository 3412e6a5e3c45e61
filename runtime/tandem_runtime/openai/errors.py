"""Errors as OpenAI clients expect them, and what each reason of a failed request becomes on HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import msgspec

from tandem_runtime.contracts.pod_protocol import Failed, Reason

HEADER_REASON: Final = "x-tandem-reason"
CLIENT_GONE_STATUS: Final = 499
"""For the access log only: nobody is left to read an answer."""
MAX_MESSAGE_CHARACTERS: Final = 1000
"""Messages quote what the client sent, which may be megabytes."""


@dataclass
class ApiError(Exception):
    """An answer other than 200. `code` is what a program tests; `message` is what a person reads."""

    status: int
    message: str
    type: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    retry_after_seconds: int | None = None

    def __post_init__(self) -> None:
        if len(self.message) > MAX_MESSAGE_CHARACTERS:
            self.message = f"{self.message[:MAX_MESSAGE_CHARACTERS]} ..."
        self.param = self.param and self.param[:MAX_MESSAGE_CHARACTERS]

    def body(self) -> dict[str, Any]:
        """`{"error": {message, type, param, code}}`."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def encoded(self) -> bytes:
        """The body as JSON."""
        return msgspec.json.encode(self.body())

    def headers(self) -> dict[str, str]:
        """Retry-After where trying again may help; the reason always."""
        headers = {HEADER_REASON: self.code or self.type}
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        if self.retry_after_seconds is not None:
            headers["Retry-After"] = str(self.retry_after_seconds)
        return headers


@dataclass(frozen=True, slots=True)
class Kind:
    """HTTP side of a reason. `code` is what clients see, the reason itself unless OpenAI has a name for it."""

    status: int
    type: str
    retry_after_seconds: int | None = None
    code: str | None = None


KINDS: Final[dict[str, Kind]] = {
    Reason.CONTEXT_LENGTH: Kind(HTTPStatus.BAD_REQUEST, "invalid_request_error"),
    Reason.INVALID: Kind(HTTPStatus.BAD_REQUEST, "invalid_request_error", code="invalid_value"),
    Reason.OVERLOADED: Kind(HTTPStatus.TOO_MANY_REQUESTS, "overloaded_error", 1),
    "backlog": Kind(HTTPStatus.TOO_MANY_REQUESTS, "overloaded_error", 1),
    "late": Kind(HTTPStatus.TOO_MANY_REQUESTS, "overloaded_error", 1),
    "no_pod": Kind(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable_error", 5),
    Reason.DRAINING: Kind(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable_error", 1),
    "attempts_exhausted": Kind(HTTPStatus.BAD_GATEWAY, "server_error", 1),
    Reason.TIMEOUT: Kind(HTTPStatus.GATEWAY_TIMEOUT, "timeout_error"),
}
OTHER: Final = Kind(HTTPStatus.INTERNAL_SERVER_ERROR, "server_error")


def error_of_failure(failed: Failed) -> ApiError:
    """The HTTP error of a request that ended without a result."""
    kind = KINDS.get(failed.reason, OTHER)
    code = kind.code or failed.reason
    retry_after_seconds = failed.retry_after_seconds or kind.retry_after_seconds
    return ApiError(kind.status, failed.message, kind.type, code, retry_after_seconds=retry_after_seconds)


def bad_request(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """400 that names the parameter."""
    return ApiError(HTTPStatus.BAD_REQUEST, message, code=code, param=param)
