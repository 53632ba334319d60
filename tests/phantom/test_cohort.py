from __future__ import annotations

import csv
import datetime as dt
import hashlib
import json
from pathlib import Path

import numpy as np
import pydicom
import pytest

from nognet.config import load_site
from nognet.errors import SiteDataError
from nognet.phantom.cohort import SiteSummary, write_cohort
from nognet.phantom.patient import plan_patients
from nognet.phantom.scanner import SCANNERS
from nognet.phantom.study import PatientJob, study_geometry, write_patient
from tests.builders.mask_files import rtstruct_mask, seg_mask

Cohort = tuple[Path, tuple[SiteSummary, ...]]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    out = tmp_path_factory.mktemp("cohort")
    return out, write_cohort(out, sites=2, patients=1, seed=1, workers=2)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "studies.csv").open(newline="") as table:
        return list(csv.DictReader(table))


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_table_names_files_that_are_there_and_dates_in_order(cohort: Cohort) -> None:
    for site in cohort[1]:
        header = (site.folder / "studies.csv").read_text().splitlines()[0]
        assert header == "patient,nodule,date,image,mask,segment"
        rows = rows_of(site.folder)
        assert len({(r["patient"], r["nodule"], r["date"]) for r in rows}) == len(rows)
        for row in rows:
            assert (site.folder / row["mask"]).is_file()
            files = list((site.folder / row["image"]).glob("*.dcm"))
            first = pydicom.dcmread(files[0], stop_before_pixels=True)
            assert first.StudyDate == dt.date.fromisoformat(row["date"]).strftime("%Y%m%d")
            assert first.PatientID == row["patient"]
            assert str(first.PatientName).startswith("PHANTOM^")


def test_a_study_shares_its_frame_of_reference_and_no_uid_is_used_twice(cohort: Cohort) -> None:
    uids: list[str] = []
    for site in cohort[1]:
        for study in site.folder.glob("dicom/*/*"):
            headers = [pydicom.dcmread(p, stop_before_pixels=True) for p in study.rglob("*.dcm")]
            uids += [h.SOPInstanceUID for h in headers]
            ct = [h for h in headers if h.Modality == "CT"]
            assert len({h.StudyInstanceUID for h in headers}) == 1
            assert len({h.SeriesInstanceUID for h in ct}) == 1
            assert len({h.FrameOfReferenceUID for h in headers}) == 1
            z = sorted(float(h.ImagePositionPatient[2]) for h in ct)
            assert np.diff(z) == pytest.approx(float(ct[0].SpacingBetweenSlices), abs=1e-4)
    assert len(set(uids)) == len(uids)
    assert all(len(uid) <= 64 for uid in uids)


def test_masks_hold_the_true_volume_at_the_true_place(cohort: Cohort) -> None:
    for number, site in enumerate(cohort[1]):
        read = rtstruct_mask if site.mask_format == "RTSTRUCT" else seg_mask
        geometry = study_geometry(SCANNERS[number])
        rows = {(r["patient"], r["nodule"], r["date"]): r for r in rows_of(site.folder)}
        truth = json.loads((site.folder / "truth.json").read_text())
        assert "phantom" in truth["note"]
        for nodule in truth["nodules"]:
            for visit in nodule["visits"]:
                row = rows[nodule["patient"], nodule["nodule"], visit["date"]]
                mask = read(site.folder / row["mask"], row["segment"], geometry)
                volume = float(mask.sum()) * geometry.voxel_volume_mm3
                assert volume == pytest.approx(visit["volume_mm3"], rel=0.02)
                centre = geometry.index_to_world(np.argwhere(mask)[:, ::-1].mean(axis=0))
                assert np.linalg.norm(centre - visit["centre_mm"]) < 2.0


def test_hospitals_differ_in_scanner_and_format_of_masks(cohort: Cohort) -> None:
    _, (first, second) = cohort
    assert (first.mask_format, second.mask_format) == ("SEG", "RTSTRUCT")
    headers = [
        pydicom.dcmread(next(site.folder.rglob("slice_0001.dcm")), stop_before_pixels=True)
        for site in (first, second)
    ]
    for keyword in ("ConvolutionKernel", "SliceThickness", "PixelSpacing", "Rows", "Manufacturer"):
        assert headers[0][keyword].value != headers[1][keyword].value


def test_site_files_load_and_the_summary_counts_pairs(cohort: Cohort) -> None:
    for site in cohort[1]:
        config = load_site(site.folder / "site.yaml")
        assert config.name == site.site
        assert config.studies == (site.folder / "studies.csv").resolve()
        assert config.server is not None
        rows = rows_of(site.folder)
        visits = [
            sum((r["patient"], r["nodule"]) == key for r in rows)
            for key in {(r["patient"], r["nodule"]) for r in rows}
        ]
        assert site.pairs == sum(n * (n - 1) // 2 for n in visits) == sum(site.strata.values())
        assert site.series == len(list(site.folder.glob("dicom/*/*/ct")))


def test_equal_seeds_write_equal_files_whatever_the_workers(cohort: Cohort, tmp_path: Path) -> None:
    write_cohort(tmp_path, sites=2, patients=1, seed=1, workers=1)
    assert digests(tmp_path) == digests(cohort[0])


def test_another_seed_writes_other_files(cohort: Cohort, tmp_path: Path) -> None:
    write_patient(PatientJob(plan_patients(0, 1, seed=2)[0], 2, tmp_path))
    other, first = digests(tmp_path), digests(cohort[0] / "hospital_a")
    assert len(other) > 40
    assert not set(other.values()) & set(first.values())


def test_a_folder_that_is_not_empty_is_refused_and_kept(cohort: Cohort) -> None:
    before = digests(cohort[0])
    with pytest.raises(SiteDataError, match="not empty"):
        write_cohort(cohort[0], sites=1, patients=1, seed=9)
    assert digests(cohort[0]) == before


def test_force_never_removes_what_no_phantom_wrote(tmp_path: Path) -> None:
    own = tmp_path / "hospital_a" / "studies.csv"
    own.parent.mkdir()
    own.write_text("precious")
    with pytest.raises(SiteDataError, match="left alone"):
        write_cohort(tmp_path, sites=1, patients=1, seed=1, overwrite=True)
    assert own.read_text() == "precious"
