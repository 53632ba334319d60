"""Faulty files are found before a process starts, each with a message that says what to do."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from nognet.errors import ProvisionError
from nognet.pki.authority import CoordinatorFiles, create_coordinator, load_authority
from nognet.pki.checks import check_server_files, check_site_files, load_site_key
from nognet.pki.site_keys import create_site_key


@pytest.fixture
def files(tmp_path: Path) -> CoordinatorFiles:
    return create_coordinator(tmp_path / "pki", ("nognet.example.org",))


def check(files: CoordinatorFiles, now: dt.datetime | None = None) -> tuple[str, ...]:
    return check_server_files(files.ca, files.certificate, files.key, now=now).warnings


def test_good_files_give_no_warning(files: CoordinatorFiles) -> None:
    assert check(files) == ()


@pytest.mark.parametrize("which", ["ca", "certificate", "key"])
def test_a_missing_file_is_named(files: CoordinatorFiles, which: str) -> None:
    path: Path = getattr(files, which)
    path.unlink()
    with pytest.raises(ProvisionError, match=f"{path}.* is missing") as caught:
        check(files)
    assert caught.value.exit_code == 12


@pytest.mark.parametrize("which", ["ca", "certificate", "key"])
def test_a_damaged_file_is_named(files: CoordinatorFiles, which: str) -> None:
    path: Path = getattr(files, which)
    path.write_text("nonsense")
    with pytest.raises(ProvisionError, match=str(path)):
        check(files)


def test_an_expired_certificate_says_when_and_how_to_renew(files: CoordinatorFiles) -> None:
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=826)
    with pytest.raises(ProvisionError, match=r"server\.crt expired on .*--renew"):
        check(files, later)


def test_an_expired_ca_is_told_from_an_expired_certificate(files: CoordinatorFiles) -> None:
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=4000)
    with pytest.raises(ProvisionError, match=r"ca\.crt expired"):
        check(files, later)


def test_a_clock_far_behind_is_said_to_be_the_cause(files: CoordinatorFiles) -> None:
    with pytest.raises(ProvisionError, match="set the clock"):
        check(files, dt.datetime.now(dt.UTC) - dt.timedelta(days=2))


def test_a_certificate_about_to_expire_is_warned_of(files: CoordinatorFiles) -> None:
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(days=820)
    assert any("expires in 4 days" in warning for warning in check(files, soon))


def test_a_key_of_another_certificate_is_refused(files: CoordinatorFiles, tmp_path: Path) -> None:
    other = create_coordinator(tmp_path / "other", ("nognet.example.org",))
    files.key.write_bytes(other.key.read_bytes())
    with pytest.raises(ProvisionError, match="is not the private key of"):
        check(files)


def test_a_certificate_of_another_ca_is_refused(files: CoordinatorFiles, tmp_path: Path) -> None:
    other = create_coordinator(tmp_path / "other", ("nognet.example.org",))
    with pytest.raises(ProvisionError, match="is not signed by the CA"):
        check_server_files(other.ca, files.certificate, files.key)


def test_a_certificate_without_names_is_refused(files: CoordinatorFiles) -> None:
    authority = load_authority(files)
    key = ec.generate_private_key(ec.SECP384R1())
    now = dt.datetime.now(dt.UTC)
    bare = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nognet.example.org")]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=100))
        .sign(authority.key, hashes.SHA256())
    )
    files.certificate.write_bytes(bare.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    with pytest.raises(ProvisionError, match="no subject alternative name"):
        check(files)


def test_a_server_certificate_in_place_of_the_ca_is_refused(files: CoordinatorFiles) -> None:
    with pytest.raises(ProvisionError, match="not of a CA"):
        check_server_files(files.certificate, files.certificate, files.key)


def test_a_key_that_others_may_read_is_warned_of(files: CoordinatorFiles) -> None:
    files.key.chmod(0o644)
    assert any("chmod 600" in warning for warning in check(files))


def test_a_good_site_passes(files: CoordinatorFiles, tmp_path: Path) -> None:
    private, _ = create_site_key("hospital_a", tmp_path / "keys")
    assert check_site_files(files.ca, private) == ()


def test_the_public_part_in_place_of_the_site_key_is_recognised(tmp_path: Path) -> None:
    _, public = create_site_key("hospital_a", tmp_path)
    with pytest.raises(ProvisionError, match="it is the public part"):
        load_site_key(public)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (ed25519.Ed25519PrivateKey.generate(), "expected ECDSA P-384"),
        (ec.generate_private_key(ec.SECP256R1()), "ECDSA secp256r1 key, expected ECDSA P-384"),
    ],
)
def test_a_site_key_of_another_kind_is_refused(
    tmp_path: Path, key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey, message: str
) -> None:
    path = tmp_path / "site.key"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
    )
    with pytest.raises(ProvisionError, match=message):
        load_site_key(path)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_a_site_key_with_a_passphrase_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.key"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "secret", "-f", str(path)],
        check=True,
    )
    with pytest.raises(ProvisionError, match="passphrase"):
        load_site_key(path)
