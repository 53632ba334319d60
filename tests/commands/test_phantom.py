from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nognet.commands.main import app
from nognet.config import load_site
from nognet.data.store import open_store
from nognet.errors import SiteDataError
from nognet.types import SPLITS


@pytest.fixture(scope="module")
def roi_sites(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("roi") / "demo"
    result = CliRunner().invoke(
        app, ["phantom", "--out", str(out), "--sites", "1", "--patients", "4", "--roi", "--json"]
    )
    assert result.exit_code == 0, result.output
    return out, result.stdout


def test_roi_writes_a_store_that_training_can_open(roi_sites: tuple[Path, str]) -> None:
    out, stdout = roi_sites
    summary = json.loads(stdout)["sites"][0]
    site = load_site(out / "hospital_a" / "site.yaml")
    assert not site.studies.exists()  # an empty table would be refused as an empty site
    prepared = open_store(site.cache)
    assert prepared.roi == site.roi
    assert sum(len(prepared.pairs(split)) for split in SPLITS) == summary["pairs"]
    assert all(len(prepared.pairs(split)) > 0 for split in SPLITS)


def test_the_summary_is_a_table_of_the_mix(tmp_path: Path) -> None:
    arguments = ["phantom", "--out", str(tmp_path), "--sites", "1", "--patients", "1", "--workers"]
    result = CliRunner().invoke(app, [*arguments, "1"])
    assert result.exit_code == 0, result.output
    for word in ("hospital_a", "SEG", "growing", "stable", "shrinking"):
        assert word in result.stdout


def test_a_folder_in_use_is_refused(roi_sites: tuple[Path, str]) -> None:
    result = CliRunner().invoke(app, ["phantom", "--out", str(roi_sites[0])])
    assert isinstance(result.exception, SiteDataError)
    assert "--force" in str(result.exception)


def test_roi_and_background_exclude_each_other(tmp_path: Path) -> None:
    arguments = ["phantom", "--out", str(tmp_path / "x"), "--roi", "--background", str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert not (tmp_path / "x").exists()
