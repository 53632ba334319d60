"""The CA and the server certificate, judged by OpenSSL's own handshake."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
from pathlib import Path

import pytest

from nognet.errors import ProvisionError
from nognet.pki.authority import (
    CoordinatorFiles,
    create_coordinator,
    renew_server_certificate,
    write_loopback_certificate,
)
from nognet.pki.checks import check_server_files, load_certificate


def handshake(files: CoordinatorFiles, ca: Path, name: str) -> str | None:
    """Connect a client that trusts `ca` alone to a server of `files`, through the ssl module."""
    ours, theirs = socket.socketpair()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(files.certificate, files.key)
    client_context = ssl.create_default_context(cafile=str(ca))
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT  # Python 3.13's default

    def serve() -> None:
        try:
            with server_context.wrap_socket(theirs, server_side=True) as connection:
                connection.recv(1)
        except OSError:
            pass  # the client refused the certificate: that is what the test looks at

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client_context.wrap_socket(ours, server_hostname=name) as secured:
            return secured.version()
    finally:
        ours.close()
        thread.join(timeout=5)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> CoordinatorFiles:
    return create_coordinator(
        tmp_path_factory.mktemp("pki"), ("nognet.example.org", "10.1.2.3", "2001:db8::7")
    )


@pytest.mark.parametrize("name", ["nognet.example.org", "10.1.2.3", "2001:db8::7"])
def test_every_host_passes_a_strict_handshake(files: CoordinatorFiles, name: str) -> None:
    assert handshake(files, files.ca, name) == "TLSv1.3"


def test_another_name_fails_the_handshake(files: CoordinatorFiles) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(files, files.ca, "other.example.org")


def test_another_ca_of_the_same_name_fails_the_handshake(
    files: CoordinatorFiles, tmp_path: Path
) -> None:
    other = create_coordinator(tmp_path, ("nognet.example.org",))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(files, other.ca, "nognet.example.org")


def test_private_keys_are_for_their_owner_only(files: CoordinatorFiles) -> None:
    assert {p.stat().st_mode & 0o777 for p in (files.ca_key, files.key)} == {0o600}


def test_an_existing_ca_is_never_replaced(tmp_path: Path) -> None:
    files = create_coordinator(tmp_path, ("localhost",))
    before = files.ca.read_bytes(), files.ca_key.read_bytes()
    with pytest.raises(ProvisionError, match="lock out every site"):
        create_coordinator(tmp_path, ("localhost",))
    assert (files.ca.read_bytes(), files.ca_key.read_bytes()) == before


def test_a_lone_ca_key_is_never_overwritten(tmp_path: Path) -> None:
    files = create_coordinator(tmp_path, ("localhost",))
    files.ca.unlink()
    with pytest.raises(ProvisionError, match=r"ca\.key exists"):
        create_coordinator(tmp_path, ("localhost",))


def test_renewing_keeps_ca_and_names_and_changes_the_key(tmp_path: Path) -> None:
    files = create_coordinator(tmp_path, ("nognet.example.org", "10.1.2.3"), days=10)
    ca, key = files.ca.read_bytes(), files.key.read_bytes()
    renew_server_certificate(tmp_path, days=20)
    assert files.ca.read_bytes() == ca
    assert files.key.read_bytes() != key
    checked = check_server_files(files.ca, files.certificate, files.key)
    assert checked.hosts == ("nognet.example.org", "10.1.2.3")
    assert (checked.ends - dt.datetime.now(dt.UTC)).days in (19, 20)
    assert handshake(files, files.ca, "nognet.example.org") == "TLSv1.3"


def test_renewing_can_change_the_names(tmp_path: Path) -> None:
    files = create_coordinator(tmp_path, ("old.example.org",))
    renew_server_certificate(tmp_path, ("new.example.org",))
    assert check_server_files(files.ca, files.certificate, files.key).hosts == ("new.example.org",)


def test_renewing_with_a_foreign_ca_key_is_refused(tmp_path: Path) -> None:
    files = create_coordinator(tmp_path / "a", ("localhost",))
    other = create_coordinator(tmp_path / "b", ("localhost",))
    files.ca_key.write_bytes(other.ca_key.read_bytes())
    with pytest.raises(ProvisionError, match="not the private key of"):
        renew_server_certificate(tmp_path / "a")


def test_a_certificate_may_not_outlive_its_ca(tmp_path: Path) -> None:
    with pytest.raises(ProvisionError, match="outlive its CA"):
        create_coordinator(tmp_path, ("localhost",), days=4000)


@pytest.mark.parametrize("host", ["https://nognet.example.org", "a b", "host:9443", "", "10.1.2"])
def test_what_is_no_host_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(ProvisionError, match="neither a DNS name nor an IP address"):
        create_coordinator(tmp_path, (host,))
    assert not (tmp_path / "ca.crt").exists()


def test_no_host_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProvisionError, match="at least one --host"):
        create_coordinator(tmp_path, ())


def test_the_ca_may_sign_no_other_ca(files: CoordinatorFiles) -> None:
    from cryptography import x509

    ca = load_certificate(files.ca, "ca")
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (
        True,
        True,
        0,
    )


def test_the_loopback_certificate_is_for_loopback_and_its_ca_key_is_forgotten(
    tmp_path: Path,
) -> None:
    files = write_loopback_certificate(tmp_path)
    assert handshake(files, files.ca, "127.0.0.1") == "TLSv1.3"
    assert not files.ca_key.exists()
