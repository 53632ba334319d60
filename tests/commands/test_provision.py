"""`nognet provision` from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from nognet.commands.main import app, main
from nognet.pki.site_keys import registered_sites


def test_coordinator_site_and_register_make_a_federation(tmp_path: Path) -> None:
    runner = CliRunner()
    pki, keys = tmp_path / "pki", tmp_path / "keys"
    made = runner.invoke(
        app, ["provision", "coordinator", "--out", str(pki), "--host", "nognet.example.org"]
    )
    assert made.exit_code == 0, made.output
    site = runner.invoke(app, ["provision", "site", "--name", "hospital_a", "--out", str(keys)])
    fingerprint = site.stdout.split(": ")[1].strip()
    registered = runner.invoke(
        app,
        ["provision", "register", "--sites", str(pki / "sites"), str(keys / "hospital_a.pub")],
    )
    assert registered.stdout == f"hospital_a: {fingerprint}\n"
    assert [s.fingerprint for s in registered_sites(pki / "sites")] == [fingerprint]


def test_a_second_ca_ends_with_exit_code_12(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["nognet", "provision", "coordinator", "--out", str(tmp_path), "--host", "localhost"]
    assert CliRunner().invoke(app, command[1:]).exit_code == 0
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 12
    assert "lock out every site" in capsys.readouterr().err
