"""Prompts that this router sent to one prefill pod and that have no first token yet: how long they will take."""

from __future__ import annotations

from tandem_runtime.policy.pods import PodSnapshot


class Prefilling:
    """Told in the order of sending; the pod computes in that order too."""

    def __init__(self) -> None:
        self.tokens = 0
        """Of all of them together."""
        self._prompts: dict[str, tuple[int, float]] = {}
        self._seconds = 0.0
        self._moved = 0.0

    def start(self, request_id: str, tokens: int, pod: PodSnapshot, now: float) -> None:
        """`pod` says how long it takes."""
        if not self._prompts:
            self._seconds, self._moved = 0.0, now
        seconds = pod.prompt_seconds(tokens)
        self._prompts[request_id] = (tokens, seconds)
        self.tokens += tokens
        self._seconds += seconds

    def end(self, request_id: str, now: float) -> None:
        """Its first token is there, or nobody waits for it any more. Idempotent."""
        found = self._prompts.pop(request_id, None)
        if found is not None:
            self.tokens -= found[0]
            self._seconds -= found[1]
            self._moved = now

    def requests(self) -> list[str]:
        """Their ids, the first one first."""
        return list(self._prompts)

    def left_seconds(self, now: float) -> float:
        """The first one may be nearly done, but what is behind it has not begun however late it is."""
        if not self._prompts:
            return 0.0
        first_seconds = next(iter(self._prompts.values()))[1]
        return self._seconds - min(max(0.0, now - self._moved), first_seconds)

    def clear(self) -> None:
        """The pod is gone."""
        self._prompts.clear()
        self.tokens, self._seconds = 0, 0.0
