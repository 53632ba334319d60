"""CT and mask in ZIP files."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from tests.builders.site_files import write_table
from tests.builders.two_dates import DATES, LEFT, prepare, scans, table


def test_a_zipped_ct_and_mask_are_read_like_folders_and_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans(tmp_path, {"a": (LEFT, 4.0)}, {"a": (LEFT, 5.0)})
    table(tmp_path, ("a", "a", "a"))
    plain = prepare(tmp_path).outcomes[0].record
    place = tmp_path / DATES[1]
    with zipfile.ZipFile(place / "upload", "w") as archive:
        for file in (place / "ct").iterdir():
            archive.write(file, f"export/{file.name}.dcm")
    with zipfile.ZipFile(place / "mask.zip", "w") as archive:
        archive.write(place / "a.nrrd", "masks/a.nrrd")
    shutil.rmtree(place / "ct")
    rows = [
        ["p", "a", DATES[0], f"{DATES[0]}/ct", f"{DATES[0]}/a.nrrd"],
        ["p", "a", DATES[1], f"{DATES[1]}/upload", f"{DATES[1]}/mask.zip"],
    ]
    write_table(tmp_path, rows)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    result = prepare(tmp_path)
    zipped = result.outcomes[0].record
    assert plain is not None
    assert zipped is not None
    assert zipped.sha256 == plain.sha256
    assert list(temporary.iterdir()) == []
    shown = [result.times[1].facts.ct.path, result.times[1].facts.masks[0].path]
    assert shown == [str(place / "upload"), str(place / "mask.zip")]


def test_a_faulty_zip_is_a_refusal_that_names_the_archive_and_its_entry(tmp_path: Path) -> None:
    scans(tmp_path, {"a": (LEFT, 4.0)}, {"a": (LEFT, 5.0)})
    place = tmp_path / DATES[1]
    with zipfile.ZipFile(place / "mask.zip", "w") as archive:
        archive.writestr("masks/a.nrrd", b"NRRD0004\nnothing else")
    rows = [
        ["p", "a", DATES[0], f"{DATES[0]}/ct", f"{DATES[0]}/a.nrrd"],
        ["p", "a", DATES[1], f"{DATES[1]}/ct", f"{DATES[1]}/mask.zip"],
    ]
    write_table(tmp_path, rows)
    [outcome] = prepare(tmp_path).outcomes
    assert outcome.status == "refused"
    assert f"{place / 'mask.zip'}!masks/a.nrrd" in outcome.findings[0].message
    assert "000001" not in outcome.findings[0].message
