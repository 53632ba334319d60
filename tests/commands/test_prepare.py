from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from nognet.commands.main import app
from nognet.errors import NognetError
from tests.builders.ct_files import ball, edit, geometry, middle, write_image, write_series

GRID = geometry((44, 44, 24), (1.0, 1.0, 2.0), origin=(-20.0, -20.0, -100.0))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Three patients whose one CT pair lies in one frame, so that no registration is needed."""
    lines = ["patient,nodule,date,image,mask"]
    rng = np.random.default_rng(0)
    for k, patient in enumerate(("a", "b", "c")):
        hu = rng.normal(-850, 30, GRID.size[::-1])
        for date, radius in (("2020-01-01", 4.0), ("2021-01-01", 5.0)):
            place = tmp_path / f"{k}-{date}"
            mask = ball(GRID, middle(GRID), radius)
            write_series(place / "ct", np.where(mask, 40, hu + (date > "2020-06")), GRID)
            write_image(place / "m.nrrd", mask, GRID)
            lines.append(f"{patient},n,{date},{place.name}/ct,{place.name}/m.nrrd")
    (tmp_path / "studies.csv").write_text("\n".join(lines))
    preparation = {"workers": 1, "registration": {"enabled": False}}
    content = {
        "name": "here", "studies": "studies.csv", "roi": {"size_vox": 32},
        "preparation": preparation,
    }  # fmt: skip
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def tilt_last(site: Path) -> None:
    for k, file in enumerate(sorted((site.parent / "2-2021-01-01" / "ct").iterdir())):
        edit(file, ImagePositionPatient=[-20, -20 + 0.5 * k, -100 + 2 * k])


def run(*words: str):  # type: ignore[no-untyped-def]  # noqa: ANN201
    return CliRunner().invoke(app, list(words))


def test_warnings_are_counted_by_pairs_and_not_by_times(site: Path) -> None:
    absent = {
        "1-2020-01-01": ("FrameOfReferenceUID",),
        "1-2021-01-01": ("FrameOfReferenceUID", "InstanceNumber"),  # warned of in other words
        "2-2020-01-01": ("FrameOfReferenceUID",),
    }
    for place, tags in absent.items():
        for file in (site.parent / place / "ct").iterdir():
            edit(file, **dict.fromkeys(tags))
    done = run("prepare", "--site", str(site))
    [line] = [line for line in done.stdout.splitlines() if "warning  missing-tags" in line]
    assert line.split()[2:4] == ["2", "pairs"]


def test_prepare_prints_what_became_of_the_pairs(site: Path) -> None:
    tilt_last(site)
    done = run("prepare", "--site", str(site))
    assert done.exit_code == 0
    assert "here: 3 pairs, 2 ok, 0 warning, 1 refused" in done.stdout
    assert "slices are sheared 14.0 degrees" in done.stdout
    assert "validation" in done.stdout
    assert "3 of 3 patients" in done.stderr


def test_prepare_gives_json_alone_on_stdout(site: Path) -> None:
    done = run("prepare", "--site", str(site), "--json")
    content = json.loads(done.stdout)
    assert [pair["status"] for pair in content["pairs"]] == ["ok"] * 3
    assert sum(count["pairs"] for count in content["counts"].values()) == 3


def test_pairs_with_a_prior_scan_are_counted(site: Path) -> None:
    assert "carry the scan before" not in run("prepare", "--site", str(site)).stdout
    table = site.parent / "studies.csv"
    place = site.parent / "0-2022"
    mask = ball(GRID, middle(GRID), 5.5)
    hu = np.random.default_rng(0).normal(-850, 30, GRID.size[::-1])  # patient a's
    write_series(place / "ct", np.where(mask, 40, hu + 2), GRID)
    write_image(place / "m.nrrd", mask, GRID)
    table.write_text(f"{table.read_text()}\na,n,2022-01-01,0-2022/ct,0-2022/m.nrrd")
    done = run("prepare", "--site", str(site))
    assert "1 of 5 pairs carry the scan before their baseline" in done.stdout
    assert json.loads(run("prepare", "--site", str(site), "--json").stdout)["pairs_with_prior"] == 1


def test_check_fails_on_a_refused_pair_and_leaves_no_index(site: Path) -> None:
    assert run("check", "--site", str(site)).exit_code == 0
    tilt_last(site)
    done = run("check", "--site", str(site), "--json")
    assert isinstance(done.exception, NognetError)
    assert done.exception.exit_code == 4
    statuses = [pair["status"] for pair in json.loads(done.stdout)["pairs"]]
    assert statuses == ["ok", "ok", "refused"]
    assert not (site.parent / "cache" / "index.json").exists()


def test_strict_makes_warnings_fail(site: Path) -> None:
    text = site.read_text().replace("preparation:", "preparation:\n  max_slice_thickness_mm: 1.5")
    site.write_text(text)
    assert run("check", "--site", str(site)).exit_code == 0
    assert isinstance(run("check", "--site", str(site), "--strict").exception, NognetError)
