from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from nognet.commands.inspect_table import WIDTH
from nognet.commands.main import app
from nognet.errors import SiteDataError
from tests.builders.ct_files import write_image
from tests.builders.inspect_cases import (
    CASES,
    GRID,
    Case,
    hu,
    masks_that_fit,
    mixed_export,
    series,
    sheared,
)

KEYS = {
    "path", "kind", "modality", "series_uid", "slices", "size", "spacing_mm", "orientation",
    "kernel", "hu_range", "status", "code", "codes", "message", "findings",
}  # fmt: skip


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["inspect", *map(str, words)])


def as_json(*words: object) -> list[dict[str, Any]]:
    done = run(*words, "--json")
    assert done.exit_code == 0, done.output
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_code_of_a_case_is_in_both_forms(tmp_path: Path, case: Case) -> None:
    case.build(tmp_path)
    rows = as_json(tmp_path)
    found = {r["path"].removeprefix(f"{tmp_path}/"): set(r["code"].split()) for r in rows}
    assert {path: codes for path, (_, _, codes) in case.expected.items()} == found or (
        case.name == "bomb"  # within the default limits it is a file without DICOM
    )
    assert all(row.keys() == KEYS for row in rows)
    text = run(tmp_path).stdout
    assert all(f"{code}: " in text for row in rows for code in row["codes"])
    assert max(map(len, text.splitlines())) <= max(WIDTH, len(str(tmp_path)) + 90)


def test_a_row_of_json_has_plain_values(tmp_path: Path) -> None:
    series(tmp_path)
    (row,) = as_json(tmp_path)
    assert row["size"] == [16, 14, 8]
    assert row["spacing_mm"] == [0.8, 0.7, 2.0]
    assert row["hu_range"] == [hu().min(), hu().max()]
    assert (row["status"], row["code"], row["message"]) == ("ok", "", "")


def test_the_table_is_aligned_and_sums_up(tmp_path: Path) -> None:
    masks_that_fit(tmp_path)
    mixed_export(tmp_path / "more")
    sheared(tmp_path / "worse")
    lines = run(tmp_path).stdout.splitlines()
    place = lines[0].index("path")
    assert lines[0].split() == ["status", "what", "size", "spacing", "mm", "plane", "kernel", "HU",
                                "path"]  # fmt: skip
    rows = [line for line in lines if line.startswith(("ok ", "refused "))]
    assert [row[place:] for row in rows] == [
        "ct", "flipped.nrrd", "mask.nii.gz", "more/ct", "rt", "seg", "worse/ct",
    ]  # fmt: skip
    assert "  localizer: localizer (scout) images (1)" in lines
    assert any(line.startswith("  sheared") and "re-export without tilt" in line for line in lines)
    assert lines[-1] == (
        f"{tmp_path}: 3 CT series, 4 masks, 3 other image series: 6 ok, 0 warning, 1 refused, "
        "3 skipped"
    )


def test_thousands_of_other_files_are_folded_in_the_table_alone(tmp_path: Path) -> None:
    series(tmp_path)
    for folder in range(30):
        (tmp_path / f"notes{folder:02d}").mkdir()
        for number in range(20):
            (tmp_path / f"notes{folder:02d}" / f"{number}.txt").write_text("text")
    lines = run(tmp_path).stdout.splitlines()
    assert len(lines) < 30
    assert "  not-dicom: not a DICOM file (600)" in lines
    assert "    20 other files in notes00" in lines
    assert "    ... and 360 in 18 more folders (see --json)" in lines
    assert len(as_json(tmp_path)) == 601


def test_refused_rows_fail_only_where_asked_to(tmp_path: Path) -> None:
    sheared(tmp_path)
    assert run(tmp_path).exit_code == 0
    done = run(tmp_path, "--strict")
    assert isinstance(done.exception, SiteDataError)
    assert done.exception.exit_code == 4
    assert "1 of 1 rows are refused" in str(done.exception)
    assert "sheared" in done.stdout
    shutil.rmtree(tmp_path / "ct")
    series(tmp_path)
    assert run(tmp_path, "--strict").exit_code == 0


def test_nothing_at_the_path_is_exit_code_4(tmp_path: Path) -> None:
    done = run(tmp_path / "nowhere")
    assert isinstance(done.exception, SiteDataError)
    assert done.exception.exit_code == 4
    assert done.stdout == ""


def test_an_empty_folder_is_no_error(tmp_path: Path) -> None:
    assert as_json(tmp_path) == []
    assert "0 CT series: 0 ok" in run(tmp_path).stdout


def test_the_limits_of_the_site_are_taken(tmp_path: Path) -> None:
    series(tmp_path / "data")
    site = tmp_path / "site.yaml"
    limits = {"max_slice_thickness_mm": 1.5}
    site.write_text(yaml.safe_dump({"name": "a", "studies": "s.csv", "preparation": limits}))
    (row,) = as_json(tmp_path / "data", "--site", site)
    assert row["codes"] == ["thick-slices"]
    assert "the site's limit is 1.5 mm" in row["message"]


def test_text_that_steers_a_terminal_is_defused(tmp_path: Path) -> None:
    (tmp_path / "\x1b[31mred\n").write_bytes(b"x")
    write_image(tmp_path / "a\x07.nii", hu(), GRID)
    text = run(tmp_path).stdout
    assert "\x1b" not in text
    assert "\x07" not in text


def test_codes_are_explained(tmp_path: Path) -> None:
    del tmp_path
    done = run("--codes")
    assert done.exit_code == 0
    assert "| `sheared` | refused, warning |" in done.stdout
