"""Classes of trouble: the user must act, somebody else must act, time must pass, or try again."""

from __future__ import annotations


class Invalid(Exception):
    """The user must change something; no retry until the object changes. Becomes Accepted=False."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Forbidden(Exception):
    """A quota, a policy or a missing right is in the way. Becomes Accepted=False, and is tried again like any error."""

    def __init__(self, what: str, error: ApiError) -> None:
        super().__init__(f"{what}: {error}")
        self.error = error
        self.message = (
            f"the API server forbids {what}: {error.message}; raise the quota, change the policy or grant the operator"
            " the right; it tries again"
        )


class Waiting(Exception):
    """Not yet; look again after `seconds`. No error."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class ApiError(Exception):
    """Answer of the API server that is not a success. Any but a refusal is transient: back off and try again."""

    def __init__(self, status: int, message: str, conflicts: tuple[str, ...] = ()) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message
        self.conflicts = conflicts
        """Of a server-side apply that does not force: paths of the fields that somebody else has written."""

    @property
    def namespace_ends(self) -> bool:
        """Nothing new may be made there; the deployment itself goes in a moment."""
        return self.status == 403 and "is being terminated" in self.message

    @property
    def forbidden(self) -> bool:
        """Somebody who is neither the user nor the operator must act, and no event tells when."""
        return self.status == 403 and not self.namespace_ends

    @property
    def refused(self) -> bool:
        """The object itself is wrong, so that trying again cannot help."""
        unknown_field = self.status == 500 and "failed to create typed patch object" in self.message
        return self.status in (400, 422) or unknown_field  # server-side apply answers 500 to a field it does not know
