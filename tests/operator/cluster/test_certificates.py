"""Certificates that a real TLS handshake judges; time is passed in."""

from __future__ import annotations

import base64
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from tandem_operator.cluster.certificates import LIFETIME, RENEW_BEFORE, Credentials, issue, read_credentials

NAMES = ["tandem-admission.tandem-system.svc", "tandem-admission.tandem-system.svc.cluster.local"]
NOW = datetime.now(UTC)


def trusts(authorities: str, served: Credentials, name: str = NAMES[0]) -> bool:
    """Whether an API server with this caBundle would talk to a webhook with this certificate: a handshake in memory."""
    client = ssl.create_default_context(cadata=authorities)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_into(server)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server, server_hostname=name)
    serving = server.wrap_bio(to_server, to_client, server_side=True)
    open_ends = [asking, serving]
    while open_ends:
        for end in list(open_ends):
            try:
                end.do_handshake()
                open_ends.remove(end)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLCertVerificationError:
                return False
    return True


@pytest.mark.parametrize("name", NAMES)
def test_an_api_server_with_the_bundle_trusts_the_service_by_its_names(name: str) -> None:
    made = issue(NAMES, NOW)
    assert trusts(made.authorities, made, name)


def test_no_other_name_and_no_other_authority_is_trusted() -> None:
    made, other = issue(NAMES, NOW), issue(NAMES, NOW)
    assert not trusts(made.authorities, made, "kubernetes.default.svc")
    assert not trusts(other.authorities, made)


def test_an_expired_certificate_is_not_trusted() -> None:
    old = issue(NAMES, NOW - LIFETIME - timedelta(hours=2))
    assert not trusts(old.authorities, old)


def test_through_a_renewal_old_and_new_certificate_are_trusted() -> None:
    old = issue(NAMES, NOW - timedelta(days=61))
    new = issue(NAMES, NOW, before=old)
    assert trusts(new.authorities, old)
    assert trusts(new.authorities, new)
    newer = issue(NAMES, NOW + timedelta(minutes=1), before=new)
    assert newer.authorities.count("BEGIN CERTIFICATE") == 2, "the bundle does not grow for ever"


def test_a_renewal_is_due_a_month_before_the_end() -> None:
    made = issue(NAMES, NOW)
    assert not made.due(NOW + LIFETIME - RENEW_BEFORE - timedelta(minutes=1))
    assert made.due(NOW + LIFETIME - RENEW_BEFORE)


def test_what_the_secret_holds_is_what_was_issued() -> None:
    made = issue(NAMES, NOW)
    assert read_credentials(made.data()) == made
    assert "ca.key" not in made.data(), "the authority's key is forgotten"


@pytest.mark.parametrize("field", ["ca.crt", "tls.crt", "tls.key", "expires", "digest"])
def test_a_secret_that_somebody_edited_counts_as_empty(field: str) -> None:
    data = issue(NAMES, NOW).data()
    for wrong in ("", "no base64!", base64.b64encode(b"other").decode(), None, 7):
        assert read_credentials({**data, field: wrong}) is None
    assert read_credentials({key: value for key, value in data.items() if key != field}) is None
    assert read_credentials(None) is read_credentials({}) is None
