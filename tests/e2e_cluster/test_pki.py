from __future__ import annotations

import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from e2e.cluster.pki import Authority, Subject


def test_a_server_certificate_is_valid_for_its_names_and_addresses(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate_file, key_file = authority.issue("server", Subject("server", names=["web.svc", "10.20.0.2"]))
    certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
    store = Store([x509.load_pem_x509_certificate(authority.certificate_file.read_bytes())])
    for name in (x509.DNSName("web.svc"), x509.IPAddress(ipaddress.ip_address("10.20.0.2"))):
        assert PolicyBuilder().store(store).build_server_verifier(name).verify(certificate, [])
    assert key_file.stat().st_mode & 0o077 == 0
    assert (tmp_path / "ca.key").stat().st_mode & 0o077 == 0


def test_a_client_certificate_says_who_it_is(tmp_path: Path) -> None:
    file, _ = Authority(tmp_path).issue("n0", Subject("system:node:n0", ["system:nodes"]))
    subject = x509.load_pem_x509_certificate(file.read_bytes()).subject.rfc4514_string()
    assert subject == "CN=system:node:n0,O=system:nodes"


def test_nothing_is_issued_twice(tmp_path: Path) -> None:
    first = Authority(tmp_path).issue("n0", Subject("n0"))[0].read_bytes()
    keys = [path.read_bytes() for path in Authority(tmp_path).issue_token_key()]
    again = Authority(tmp_path)
    assert again.issue("n0", Subject("n0"))[0].read_bytes() == first
    assert [path.read_bytes() for path in again.issue_token_key()] == keys
