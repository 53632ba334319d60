from __future__ import annotations

import csv
import datetime as dt
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from typer.testing import CliRunner

from nognet.commands.main import app
from nognet.data.ct.series import choose_series
from nognet.data.site.scan import Proposal, scan_folder, write_table
from nognet.data.site.studies import read_studies
from nognet.errors import NognetError, SiteDataError
from nognet.phantom.cohort import write_cohort
from tests.builders.ct_files import (
    WrittenSeries,
    ball,
    edit,
    geometry,
    middle,
    outline,
    rotation,
    write_rtstruct,
    write_seg,
    write_series,
)

GRID = geometry((20, 20, 8), (2.0, 2.0, 2.0))
THICK = geometry((20, 20, 4), (2.0, 2.0, 4.0))


def ct(folder: Path, date: str, *, grid: Any = GRID, **tags: Any) -> WrittenSeries:
    days = dict.fromkeys(("StudyDate", "SeriesDate", "AcquisitionDate"), date)
    hu = np.full(grid.size[::-1], -800.0)
    return write_series(folder, hu, grid, **{"PatientID": "P-1", **days, **tags})


def contours(path: Path, series: WrittenSeries, name: str = "nodule", **tags: Any) -> Path:
    nodule = ball(GRID, middle(GRID), 5.0)
    drawn = [loop for k in range(len(nodule)) for loop in outline(nodule[k], GRID, k)]
    write_rtstruct(path, {name: drawn}, series)
    edit(path, **{"PatientID": "P-1", **tags})
    return path


def two_dates(root: Path) -> tuple[WrittenSeries, WrittenSeries]:
    first, second = ct(root / "a" / "ct", "20200105"), ct(root / "b" / "ct", "20210206")
    contours(root / "a" / "rt", first)
    contours(root / "b" / "rt", second)
    return first, second


def codes(found: Proposal) -> list[str]:
    aside = [a for p in found.patients for a in p.left_aside]
    return sorted(a.code for a in [*aside, *found.left_aside])


def run(*words: str):  # type: ignore[no-untyped-def]  # noqa: ANN201
    return CliRunner().invoke(app, ["scan", *words])


def test_the_proposal_reads_back_as_a_table(tmp_path: Path) -> None:
    two_dates(tmp_path)
    found = scan_folder(tmp_path)
    write_table(found, tmp_path / "studies.csv")
    rows = read_studies(tmp_path / "studies.csv")
    assert [(r.patient, r.nodule, r.date, r.segment, r.series) for r in rows] == [
        ("P-1", "1", dt.date(2020, 1, 5), "nodule", None),
        ("P-1", "1", dt.date(2021, 2, 6), "nodule", None),
    ]
    assert [r.image.name for r in rows] == ["ct", "ct"]
    assert codes(found) == []


def test_series_of_one_folder_are_named_and_found_by_their_name(tmp_path: Path) -> None:
    first = ct(tmp_path / "one", "20200105")
    for k, file in enumerate(ct(tmp_path / "x", "20200105", grid=THICK).files):
        shutil.move(file, tmp_path / "one" / f"thick{k}")
    second = ct(tmp_path / "two", "20210206")
    contours(tmp_path / "m1", first)
    contours(tmp_path / "m2", second)
    rows = scan_folder(tmp_path).rows
    assert [row.series for row in rows] == [first.series_uid, ""]
    chosen = choose_series(rows[0].image, rows[0].series)
    assert chosen.usable
    assert len(chosen.headers) == 8


def test_two_kernels_under_one_uid_are_told_apart_and_one_is_named(tmp_path: Path) -> None:
    for folder, date in (("a", "20200105"), ("b", "20210206")):
        series = ct(tmp_path / folder, date)
        for k, file in enumerate(series.files):
            data = pydicom.dcmread(file)
            data.ConvolutionKernel = "B70f"
            data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            data.save_as(tmp_path / folder / f"sharp{k}")
        contours(tmp_path / f"{folder}.rt", series)
    found = scan_folder(tmp_path)
    assert {choice.series.kernel for choice in found.patients[0].choices} == {"B30f"}
    for row in found.rows:
        chosen = choose_series(row.image, row.series)
        assert {header.kernel for header in chosen.headers} == {"B30f"}


def test_what_is_no_axial_ct_is_left_aside_and_named(tmp_path: Path) -> None:
    two_dates(tmp_path)
    ct(tmp_path / "mr", "20200105", Modality="MR")
    ct(tmp_path / "scout", "20200105", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    turned = geometry((20, 20, 8), (2.0, 2.0, 2.0), axes=rotation((0, 90, 0)))
    ct(tmp_path / "sagittal", "20200105", grid=turned)
    shutil.make_archive(str(tmp_path / "upload"), "zip", tmp_path / "mr")
    (tmp_path / "x.nii.gz").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("words")
    found = scan_folder(tmp_path)
    assert codes(found) == [
        "archive",
        "localizer",
        "no-headers",
        "not-axial",
        "not-ct",
        "not-dicom",
    ]
    assert len(found.rows) == 2


def test_a_study_exported_twice_is_taken_once_and_it_is_said(tmp_path: Path) -> None:
    two_dates(tmp_path)
    shutil.copytree(tmp_path / "a", tmp_path / "again")
    found = scan_folder(tmp_path)
    assert [row.image.parent.name for row in found.rows] == ["a", "b"]
    assert codes(found) == ["duplicate-study", "duplicate-study"]
    assert all(choose_series(row.image).usable for row in found.rows)


def test_a_copy_inside_the_folder_of_the_first_is_not_read_with_it(tmp_path: Path) -> None:
    two_dates(tmp_path)
    shutil.copytree(tmp_path / "a" / "ct", tmp_path / "a" / "ct" / "copy")
    rows = scan_folder(tmp_path).rows
    assert rows[0].image == tmp_path / "a" / "ct" / "copy"
    assert choose_series(rows[0].image).usable


def test_without_patient_id_the_folder_names_the_patient_and_a_note_says_so(tmp_path: Path) -> None:
    for date in ("20200105", "20210206"):
        series = ct(tmp_path / "who" / date / "ct", date, PatientID="")
        contours(tmp_path / "who" / date / "rt", series, PatientID="")
    found = scan_folder(tmp_path)
    assert {row.patient for row in found.rows} == {"who"}
    assert all("PatientID is empty" in c.notes[0] for c in found.patients[0].choices)


def test_missing_and_contradicting_dates_are_said(tmp_path: Path) -> None:
    two_dates(tmp_path)
    ct(tmp_path / "undated", "")
    for file in (tmp_path / "b" / "ct").iterdir():
        edit(file, StudyDate="20190101")
    found = scan_folder(tmp_path)
    assert codes(found) == ["no-date"]
    assert "disagree by 767 days" in found.patients[0].choices[1].notes[0]


def test_seg_and_a_structure_that_names_images_alone_are_matched(tmp_path: Path) -> None:
    first, second = ct(tmp_path / "a", "20200105"), ct(tmp_path / "b", "20210206")
    write_seg(tmp_path / "seg", {"Tumor": ball(GRID, middle(GRID), 5.0)}, first)
    contours(tmp_path / "rt", second)
    _name_images_alone(tmp_path / "rt", second)
    found = scan_folder(tmp_path)
    assert [row.mask.name for row in found.rows] == ["seg", "rt"]


def _name_images_alone(path: Path, series: WrittenSeries) -> None:
    data = pydicom.dcmread(path)
    del data.ReferencedFrameOfReferenceSequence
    image = Dataset()
    image.ReferencedSOPInstanceUID = pydicom.dcmread(series.files[3]).SOPInstanceUID
    data.ROIContourSequence[0].ContourSequence[0].ContourImageSequence = [image]
    data.save_as(path)


def test_birth_dates_that_differ_keep_two_people_apart(tmp_path: Path) -> None:
    two_dates(tmp_path)
    for folder, born in (("a", "19500101"), ("b", "19610101")):
        for file in (tmp_path / folder / "ct").iterdir():
            edit(file, PatientBirthDate=born)
    found = scan_folder(tmp_path)
    assert not found.rows
    assert codes(found) == ["mixed-patients"]


def test_damaged_headers_never_raise(tmp_path: Path) -> None:
    _, second = two_dates(tmp_path)
    whole = second.files[0].read_bytes()
    for k, length in enumerate((0, 100, 140, 300, 600)):
        (tmp_path / f"cut{k}").write_bytes(whole[:length])
    edit(tmp_path / "a" / "rt", StructureSetROISequence=None)
    found = scan_folder(tmp_path)
    assert not found.rows
    assert "mask-absent" in codes(found)


def test_no_name_of_a_patient_is_printed_or_written(tmp_path: Path) -> None:
    two_dates(tmp_path)
    done = run(str(tmp_path), "--out", str(tmp_path / "s.csv"), "--json")
    text = done.stdout + done.stderr + (tmp_path / "s.csv").read_text()
    assert "Secret" not in text
    assert json.loads(done.stdout)["rows"][0]["patient"] == "P-1"


def test_the_command_explains_each_choice(tmp_path: Path) -> None:
    two_dates(tmp_path)
    ct(tmp_path / "a" / "thick", "20200105", grid=THICK)
    done = run(str(tmp_path), "--out", str(tmp_path / "s.csv"))
    assert done.exit_code == 0
    assert "P-1  2020-01-05  kernel B30f, 2 mm, 8 images: a mask was drawn on it" in done.stdout
    assert "not kernel B30f, 4 mm, 4 images: no mask was drawn on it" in done.stdout
    assert "stays at the site" in done.stderr


def test_a_table_that_is_there_is_left_alone_without_force(tmp_path: Path) -> None:
    two_dates(tmp_path)
    out = tmp_path / "studies.csv"
    out.write_text("mine")
    assert isinstance(run(str(tmp_path), "--out", str(out)).exception, NognetError)
    assert out.read_text() == "mine"
    assert run(str(tmp_path), "--out", str(out), "--force").exit_code == 0
    assert out.read_text().startswith("patient,nodule,date,image,mask")


def test_a_folder_without_dicom_ends_with_4_and_says_what_scan_can_do(tmp_path: Path) -> None:
    (tmp_path / "ct.nii.gz").write_bytes(b"")
    done = run(str(tmp_path), "--out", str(tmp_path / "s.csv"))
    assert isinstance(done.exception, SiteDataError)
    assert done.exception.exit_code == 4
    assert "only propose from DICOM headers" in str(done.exception)
    assert not (tmp_path / "s.csv").exists()


def test_a_pattern_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(SiteDataError, match="no regular expression"):
        scan_folder(tmp_path, segments="(")


def test_files_are_not_changed(tmp_path: Path) -> None:
    two_dates(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    scan_folder(tmp_path)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.slow
@pytest.mark.parametrize("site", ["hospital_a", "hospital_b"])
def test_the_proposal_for_a_phantom_hospital_is_its_own_table(tmp_path: Path, site: str) -> None:
    """Same patients, dates, images, masks, segments; prepare makes the same pairs of both."""
    write_cohort(tmp_path, sites=2, patients=2, seed=3, workers=1)
    folder = tmp_path / site
    written = _cells(folder / "studies.csv")
    assert CliRunner().invoke(app, ["prepare", "--site", str(folder / "site.yaml")]).exit_code == 0
    pairs = _pairs(folder)
    (folder / "studies.csv").unlink()
    shutil.rmtree(folder / "cache")
    done = run(str(folder), "--out", str(folder / "studies.csv"))
    assert done.exit_code == 0, done.exception
    assert _cells(folder / "studies.csv") == written
    done = CliRunner().invoke(app, ["prepare", "--site", str(folder / "site.yaml")])
    assert done.exit_code == 0, done.exception
    assert _pairs(folder) == pairs


def _cells(path: Path) -> set[tuple[str, ...]]:
    """The rows but for the nodules' names."""
    with path.open(encoding="utf-8") as file:
        names = ("patient", "date", "image", "mask", "segment")
        return {tuple(row[name] for name in names) for row in csv.DictReader(file)}


def _pairs(folder: Path) -> list[tuple[str, str, float]]:
    report = json.loads((folder / "state" / "prepare-report.json").read_text())
    return sorted(
        (pair["patient"], pair["status"], round(pair["quality"].get("ncc", 0.0), 6))
        for pair in report["pairs"]
    )
