"""Keys of sites and their register."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nognet.errors import ProvisionError
from nognet.pki.site_keys import (
    create_site_key,
    read_public_key,
    register_site,
    registered_sites,
)


@pytest.fixture
def sites(tmp_path: Path) -> Path:
    folder = tmp_path / "sites"
    folder.mkdir()
    return folder


def test_the_private_key_is_for_its_owner_only(tmp_path: Path) -> None:
    private, public = create_site_key("hospital_a", tmp_path)
    assert private.stat().st_mode & 0o777 == 0o600
    assert public.read_text().split()[0] == "ecdsa-sha2-nistp384"
    assert public.read_text().split()[2] == "hospital_a"


def test_an_existing_key_is_never_replaced(tmp_path: Path) -> None:
    private, _ = create_site_key("hospital_a", tmp_path)
    before = private.read_bytes()
    with pytest.raises(ProvisionError, match="lock this site out"):
        create_site_key("hospital_a", tmp_path)
    assert private.read_bytes() == before


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_ssh_keygen_reads_the_key_and_prints_the_same_fingerprint(tmp_path: Path) -> None:
    private, public = create_site_key("hospital_a", tmp_path)
    listed = subprocess.run(
        ["ssh-keygen", "-lf", str(private)], capture_output=True, text=True, check=True
    ).stdout.split()
    assert listed[:2] == ["384", read_public_key(public).fingerprint]


def test_registering_takes_the_name_from_the_comment(tmp_path: Path, sites: Path) -> None:
    _, public = create_site_key("hospital_a", tmp_path)
    registered = register_site(sites, public)
    assert registered_sites(sites) == (registered,)
    assert registered.name == "hospital_a"


def test_registering_twice_changes_nothing(tmp_path: Path, sites: Path) -> None:
    _, public = create_site_key("hospital_a", tmp_path)
    assert register_site(sites, public) == register_site(sites, public)
    assert len(registered_sites(sites)) == 1


def test_one_key_for_two_sites_is_refused(tmp_path: Path, sites: Path) -> None:
    _, public = create_site_key("hospital_a", tmp_path)
    register_site(sites, public)
    with pytest.raises(ProvisionError, match="registered as 'hospital_a' already"):
        register_site(sites, public, name="hospital_b")


def test_one_key_under_two_names_put_there_by_hand_is_found(tmp_path: Path, sites: Path) -> None:
    _, public = create_site_key("hospital_a", tmp_path)
    shutil.copy(public, sites / "hospital_a.pub")
    shutil.copy(public, sites / "hospital_b.pub")
    with pytest.raises(ProvisionError, match="one and the same key"):
        registered_sites(sites)


def test_a_new_key_for_a_registered_site_needs_replace(tmp_path: Path, sites: Path) -> None:
    _, first = create_site_key("hospital_a", tmp_path / "1")
    _, second = create_site_key("hospital_a", tmp_path / "2")
    register_site(sites, first)
    with pytest.raises(ProvisionError, match="registered with another key"):
        register_site(sites, second)
    assert register_site(sites, second, replace=True) == registered_sites(sites)[0]


def test_a_private_key_in_place_of_the_public_one_is_refused_loudly(
    tmp_path: Path, sites: Path
) -> None:
    private, _ = create_site_key("hospital_a", tmp_path)
    with pytest.raises(ProvisionError, match="must never leave its site"):
        register_site(sites, private)


def test_another_curve_is_refused(tmp_path: Path, sites: Path) -> None:
    public = tmp_path / "site.pub"
    line = (
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    )
    public.write_bytes(line + b" hospital_a\n")
    with pytest.raises(ProvisionError, match="expected ecdsa-sha2-nistp384"):
        register_site(sites, public)


@pytest.mark.parametrize("comment", ["", " Hospital A", " ../evil", " me@laptop"])
def test_a_comment_that_is_no_name_is_refused(tmp_path: Path, sites: Path, comment: str) -> None:
    _, public = create_site_key("hospital_a", tmp_path)
    public.write_text(" ".join(public.read_text().split()[:2]) + comment + "\n")
    with pytest.raises(ProvisionError, match="expected lower-case letters"):
        register_site(sites, public)
    assert register_site(sites, public, name="hospital_a").name == "hospital_a"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProvisionError, match="no such folder"):
        registered_sites(tmp_path / "nowhere")
