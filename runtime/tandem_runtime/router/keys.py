"""The API keys that are valid now, found without telling by time how much of a guess was right."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tandem_runtime.contracts.key_entry import MAX_KEY_CHARACTERS, NAME, KeyEntry, digest_of, read_entry

NOBODY: Final = bytes(32)
SALT_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A valid entry. `tenant_salt` separates the cached prefixes of tenants; `tenant_hash` names one in logs."""

    name: str
    entry: KeyEntry
    tenant_salt: bytes
    tenant_hash: str


@dataclass(frozen=True)
class KeyRing:
    """Never changes; a new one replaces it. `invalid`: why entries do not count, by name."""

    keys: Mapping[str, ApiKey] = field(default_factory=dict)
    invalid: Mapping[str, str] = field(default_factory=dict)
    _secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    _index: dict[bytes, ApiKey] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for key in self.keys.values():
            self._index[self._place(key.entry.digest)] = key

    def find(self, presented: str) -> ApiKey | None:
        """None for a key that is not valid. Where it is looked up depends on a secret of this process, so the time
        of the look-up says nothing about the keys; the hashes are compared in constant time."""
        if len(presented) > MAX_KEY_CHARACTERS:
            return None
        digest = digest_of(presented)
        found = self._index.get(self._place(digest))
        same = hmac.compare_digest(found.entry.digest if found is not None else NOBODY, digest)
        return found if same else None

    def _place(self, digest: bytes) -> bytes:
        return hashlib.blake2b(digest, digest_size=16, key=self._secret).digest()


def make_ring(entries: Mapping[str, bytes]) -> KeyRing:
    """Of the entries' contents by name. What is not in order opens nothing, and the others go on counting."""
    keys: dict[str, ApiKey] = {}
    invalid: dict[str, str] = {}
    known: dict[bytes, str] = {}
    for name in sorted(entries):
        try:
            entry = read_entry(name, entries[name])
        except ValueError as error:
            told = name if NAME.fullmatch(name) else f"an entry with a name of {len(name)} characters"
            invalid[told] = str(error)
            continue
        first = known.setdefault(entry.digest, name)
        if first != name:
            invalid[name] = f"it is the same key as {first}, whose limits hold"
            continue
        keys[name] = make_key(name, entry)
    return KeyRing(keys, invalid)


def make_key(name: str, entry: KeyEntry) -> ApiKey:
    """A key without a tenant is one of its own: `key:NAME` cannot be anybody's tenant by mistake."""
    tenant = f"tenant:{entry.tenant}" if entry.tenant else f"key:{name}"
    salt = hashlib.blake2b(tenant.encode(), digest_size=SALT_BYTES, person=b"tandem-salt").digest()
    told = hashlib.blake2b(tenant.encode(), digest_size=6, person=b"tandem-log").hexdigest()
    return ApiKey(name, entry, salt, told)
