"""What the coordinator checks and lays ready before anything starts."""

from __future__ import annotations

import socket
import sqlite3
from pathlib import Path

import pytest
from nognet_server.processes.startup import check_coordinator, check_ports, lay_ready

from nognet.config import load_study
from nognet.errors import ConfigError, FederationError, ProvisionError
from nognet.pki.authority import create_coordinator
from nognet.pki.checks import check_server_files
from nognet.pki.site_keys import create_site_key, register_site
from tests.builders.deployment import free_ports


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    """A study with two registered sites and free ports."""
    files = create_coordinator(tmp_path / "pki", ("127.0.0.1",))
    for name in ("hospital_a", "hospital_b"):
        register_site(files.sites, create_site_key(name, tmp_path / "keys")[1])
    listen, control = free_ports(2)
    path = tmp_path / "study.yaml"
    path.write_text(
        f"name: tiny\nserver: {{listen: '127.0.0.1:{listen}', control_port: {control}, "
        "ca: pki/ca.crt, certificate: pki/server.crt, key: pki/server.key, sites: pki/sites}\n",
        encoding="utf-8",
    )
    return path


def test_a_good_coordinator_passes(study_file: Path) -> None:
    coordinator = check_coordinator(load_study(study_file))
    check_ports(coordinator)
    assert [site.name for site in coordinator.sites] == ["hospital_a", "hospital_b"]


def test_a_study_without_a_server_is_told_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("name: tiny\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"server\.listen.*nognet-sim"):
        check_coordinator(load_study(path))


def test_too_few_registered_sites_are_named(study_file: Path) -> None:
    (study_file.parent / "pki" / "sites" / "hospital_b.pub").unlink()
    with pytest.raises(ProvisionError, match=r"1 site\(s\) registered \(hospital_a\).*waits for 2"):
        check_coordinator(load_study(study_file))


@pytest.mark.parametrize("which", ["listen", "control"])
def test_a_taken_port_is_named(study_file: Path, which: str) -> None:
    coordinator = check_coordinator(load_study(study_file))
    address = coordinator.server.listen if which == "listen" else coordinator.control_address
    host, _, port = address.rpartition(":")
    with (
        socket.create_server((host, int(port))),
        pytest.raises(FederationError, match=f"server.{which}.*{address}"),
    ):
        check_ports(coordinator)


def test_each_start_has_secrets_of_its_own(study_file: Path) -> None:
    coordinator = check_coordinator(load_study(study_file))
    first, second = lay_ready(coordinator), lay_ready(coordinator)
    assert first != second
    assert coordinator.token_file.read_text(encoding="ascii") == second
    assert coordinator.token_file.stat().st_mode & 0o777 == 0o600
    loopback = coordinator.loopback
    assert "127.0.0.1" in check_server_files(loopback.ca, loopback.certificate, loopback.key).hosts


def test_the_database_is_compacted_at_the_start(study_file: Path) -> None:
    coordinator = check_coordinator(load_study(study_file))
    coordinator.state.mkdir()
    with sqlite3.connect(coordinator.database) as database:
        database.execute("create table objects (content blob)")
        database.executemany("insert into objects values (?)", [(b"x" * 100_000,)] * 20)
        database.execute("delete from objects")
    database.close()
    before = coordinator.database.stat().st_size
    lay_ready(coordinator)
    assert coordinator.database.stat().st_size < before / 10
