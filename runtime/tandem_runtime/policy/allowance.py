"""What one key may take from one router: requests at once, requests and tokens per minute. Pure: `now` is passed in.

Buckets instead of calendar minutes: nobody gets twice the rate at the turn of a minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final

from tandem_runtime.contracts.key_entry import KeyLimits

BURST_SECONDS: Final = 10.0
"""What was not used so long may come at once: clients send in bursts, and pools smooth over seconds, not minutes."""
LEAST_RETRY_SECONDS: Final = 1
"""Retry-After has no fractions."""


class Bucket:
    """Refills at `per_minute` / 60 a second, up to what BURST_SECONDS bring, at least `least`. May be overdrawn."""

    def __init__(self, per_minute: float, least: float, now: float) -> None:
        self.per_second = per_minute / 60
        self.size = max(least, self.per_second * BURST_SECONDS)
        self._level = self.size
        self._at = now

    def level(self, now: float) -> float:
        """What may be taken now; negative while it is overdrawn. A clock that goes back brings nothing."""
        if now > self._at:
            self._level = min(self.size, self._level + (now - self._at) * self.per_second)
            self._at = now
        return self._level

    def take(self, amount: float, now: float) -> None:
        """Also more than there is."""
        self._level = self.level(now) - amount

    def resize(self, per_minute: float, least: float, now: float) -> None:
        """The limit or the number of routers changed: what was used stays used."""
        used = self.size - self.level(now)
        self.per_second = per_minute / 60
        self.size = max(least, self.per_second * BURST_SECONDS)
        self._level = self.size - used

    def wait_seconds(self, level: float, now: float) -> float:
        """Until it holds that much."""
        return max(0.0, (level - self.level(now)) / self.per_second)


@dataclass(frozen=True, slots=True)
class OverLimit:
    """Why a request is turned away, and when trying again may help."""

    reason: str
    message: str
    retry_after_seconds: int


class Allowance:
    """Of one key in one of `routers` routers: each enforces limit / routers, so that together they keep the limit.

    Of a concurrency below the number of routers each still takes one request: none could be served otherwise.
    """

    def __init__(self, limits: KeyLimits, routers: int, now: float) -> None:
        self.running = 0
        self._limits, self._routers = limits, max(1, routers)
        self._requests = self._bucket(limits.requests_per_minute, now)
        self._tokens = self._bucket(limits.tokens_per_minute, now)

    def change(self, limits: KeyLimits, routers: int, now: float) -> None:
        """From the next request on; what was used stays used."""
        routers = max(1, routers)
        if (limits, routers) == (self._limits, self._routers):
            return
        self._limits, self._routers = limits, routers
        self._requests = self._changed(self._requests, limits.requests_per_minute, now)
        self._tokens = self._changed(self._tokens, limits.tokens_per_minute, now)

    @property
    def concurrent(self) -> int | None:
        """Requests that this router takes at once; None: as many as come."""
        limit = self._limits.max_concurrent
        return None if limit is None else max(1, limit // self._routers)

    def start(self, now: float) -> OverLimit | None:
        """Counts one more request, or says why not; nothing is counted then."""
        concurrent = self.concurrent
        if concurrent is not None and self.running >= concurrent:
            text = f"this key has {self.running} requests in flight here; {self._share('maxConcurrent', concurrent)}"
            return OverLimit("key_concurrency", text, LEAST_RETRY_SECONDS)
        if self._requests is not None and self._requests.level(now) < 1:
            return self._over("requestsPerMinute", "key_request_rate", self._requests, 1, now)
        if self._tokens is not None and self._tokens.level(now) <= 0:
            return self._over("tokensPerMinute", "key_token_rate", self._tokens, 1, now)
        if self._requests is not None:
            self._requests.take(1, now)
        self.running += 1
        return None

    def spend(self, tokens: int, now: float) -> None:
        """Prompt tokens when they are counted, output tokens when the answer has ended: the bucket may be overdrawn
        by what is in flight, and the next requests wait for it."""
        if self._tokens is not None and tokens:
            self._tokens.take(tokens, now)

    def end(self) -> None:
        """Once for each request that started."""
        self.running = max(0, self.running - 1)

    def idle(self, now: float) -> bool:
        """Nothing would be lost if it were forgotten."""
        buckets = (self._requests, self._tokens)
        return not self.running and all(bucket is None or bucket.level(now) >= bucket.size for bucket in buckets)

    def _bucket(self, per_minute: int | None, now: float) -> Bucket | None:
        return None if per_minute is None else Bucket(per_minute / self._routers, 1.0, now)

    def _changed(self, bucket: Bucket | None, per_minute: int | None, now: float) -> Bucket | None:
        if bucket is None or per_minute is None:
            return self._bucket(per_minute, now)
        bucket.resize(per_minute / self._routers, 1.0, now)
        return bucket

    def _share(self, limit: str, share: float) -> str:
        routers = f", shared by {self._routers} routers" if self._routers > 1 else ""
        return f"its {limit} allows {share:g}{routers}"

    def _over(self, limit: str, reason: str, bucket: Bucket, level: float, now: float) -> OverLimit:
        seconds = max(LEAST_RETRY_SECONDS, ceil(bucket.wait_seconds(level, now)))
        share = bucket.per_second * 60
        text = f"this key is over its limit: {self._share(limit, round(share, 1))}; try again in {seconds} s"
        return OverLimit(reason, text, seconds)
