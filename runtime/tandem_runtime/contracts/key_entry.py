"""One API key as it stands in the Secret: an entry per key, named after it. Either only the hash, "sha256:<64 hex>", or
JSON: {"hash": "sha256:...", "class": "interactive", "tenant": "acme", "maxConcurrent": 8, "requestsPerMinute": 600,
"tokensPerMinute": 100000}. The key itself stands nowhere: keys are 256 random bits, so a plain hash cannot be guessed.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

import msgspec

HASH: Final = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)
NAME: Final = re.compile(r"[A-Za-z0-9][-._A-Za-z0-9]{0,39}", re.ASCII)
"""So short that a key put there by mistake is no name: names are logged."""
CLASS: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
MAX_TENANT_CHARACTERS: Final = 128
MAX_ENTRY_BYTES: Final = 16 << 10
"""Far more than an entry takes; what is longer is something else."""
MAX_KEY_CHARACTERS: Final = 512
"""Nobody's key is longer, and hashing must not be a way to keep a router busy."""


class KeyLimits(msgspec.Struct, frozen=True):
    """Over all routers together; None: no limit."""

    max_concurrent: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Prompt and output."""


class KeyEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """As it is written."""

    hash: str
    request_class: str = msgspec.field(name="class", default="")
    """Of requests that name none."""
    tenant: str = ""
    """Keys of one tenant share cached prefixes; empty: the key is a tenant of its own."""
    max_concurrent: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    @property
    def limits(self) -> KeyLimits:
        """Of all routers together."""
        return KeyLimits(self.max_concurrent, self.requests_per_minute, self.tokens_per_minute)

    @property
    def digest(self) -> bytes:
        """32 bytes."""
        return bytes.fromhex(self.hash.removeprefix("sha256:"))


def digest_of(key: str) -> bytes:
    """What is known of a key."""
    return hashlib.sha256(key.encode()).digest()


def hash_of(key: str) -> str:
    """As it stands in an entry."""
    return f"sha256:{digest_of(key).hex()}"


def read_entry(name: str, content: bytes) -> KeyEntry:
    """Raises ValueError that says what is wrong and quotes nothing: somebody may have put the key itself there."""
    if not NAME.fullmatch(name):
        raise ValueError("its name is not of up to 40 letters, digits and - . _")
    if len(content) > MAX_ENTRY_BYTES:
        raise ValueError(f"it is longer than the {MAX_ENTRY_BYTES} bytes that an entry may have")
    words = content.strip()
    if not words.startswith(b"{"):
        entry = KeyEntry(words.decode("ascii", errors="replace"))
    else:
        try:
            entry = msgspec.json.decode(words, type=KeyEntry)
        except msgspec.ValidationError as error:
            raise ValueError(_without_values(str(error))) from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise ValueError("it is no JSON") from None
    if problem := complaint(entry):
        raise ValueError(problem)
    return entry


def complaint(entry: KeyEntry) -> str:
    """What is wrong with it; empty when nothing is. Never says its values, which may be keys."""
    if not HASH.fullmatch(entry.hash):
        return "hash is not sha256: and 64 hex digits (make it with `tandem-runtime keys hash`)"
    if entry.request_class and not CLASS.fullmatch(entry.request_class):
        return "class is not of the letters a-z, digits and -"
    if len(entry.tenant) > MAX_TENANT_CHARACTERS:
        return f"tenant has {len(entry.tenant)} characters; {MAX_TENANT_CHARACTERS} at most are allowed"
    for name in ("max_concurrent", "requests_per_minute", "tokens_per_minute"):
        value: int | None = getattr(entry, name)
        if value is not None and not 1 <= value < 1 << 50:
            return f"{_camel(name)} is {value}; a limit is a whole number of at least 1, and no limit is no field"
    return ""


def write_entry(entry: KeyEntry) -> bytes:
    """The content of the entry."""
    return msgspec.json.encode(entry)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _without_values(words: str) -> str:
    """msgspec names fields and types; an unknown field's name is the only thing of the writer that it repeats."""
    return "it has a field that entries do not have" if "unknown field" in words else words
