from __future__ import annotations

import datetime as dt
import json
import os
import shutil
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nognet.config import PreparationConfig, RegistrationConfig, RoiConfig, SiteConfig
from nognet.data.pairs.roi import crop_mask, nodule_volume_mm3
from nognet.data.site.prepare import examine_site, prepare_site, prepare_site_with_report
from nognet.data.store import open_store
from nognet.errors import SiteDataError
from tests.builders.ct_files import ball, edit, geometry, middle, write_image, write_series

GRID = geometry((60, 56, 36), (1.2, 1.2, 2.0), origin=(-30.0, -30.0, -100.0))
PATIENTS = ("SECRET-ONE", "SECRET-TWO", "SECRET-THREE")
RADII = {"2019-04-05": 4.0, "2020-06-07": 5.0, "2021-08-09": 5.2}


def tissue(seed: int) -> np.ndarray:
    noise = sitk.GetImageFromArray(
        np.random.default_rng(seed).normal(size=GRID.size[::-1]).astype(np.float32)
    )
    smooth = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(noise, 2.0))
    hu = -860 + 500 * np.maximum(smooth / smooth.std() - 1, 0)
    hu[:, :8] = 40
    return np.asarray(np.clip(hu, -1000, 300))


def write_site(folder: Path, patients: tuple[str, ...] = PATIENTS) -> SiteConfig:
    """Patients with a growing nodule at three dates, DICOM and NRRD masks."""
    lines = ["patient,nodule,date,image,mask"]
    for seed, patient in enumerate(patients):
        hu = tissue(seed)
        for date, radius in RADII.items():
            where = f"{patient}/{date}"
            mask = ball(GRID, middle(GRID), radius + 0.1 * seed)
            write_series(folder / where / "ct", np.where(mask, 40, hu), GRID)
            write_image(folder / where / "mask.nrrd", mask, GRID)
            lines.append(f"{patient},n1,{date},{where}/ct,{where}/mask.nrrd")
    (folder / "studies.csv").write_text("\n".join(lines) + "\n")
    return config_of(folder)


@pytest.fixture(scope="module")
def prepared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    prepare_site(write_site(folder))
    return folder


@pytest.fixture
def site(prepared_folder: Path, tmp_path: Path) -> SiteConfig:
    """A prepared site of the test's own."""
    shutil.copytree(prepared_folder, tmp_path / "site")
    return config_of(tmp_path / "site")


def preparation(workers: int) -> PreparationConfig:
    return PreparationConfig(
        workers=workers, registration=RegistrationConfig(region_margin_mm=20.0)
    )


def config_of(folder: Path) -> SiteConfig:
    return SiteConfig(
        name="here",
        studies=folder / "studies.csv",
        cache=folder / "cache",
        state=folder / "state",
        roi=RoiConfig(size_vox=32),
        preparation=preparation(1),
    )


def test_every_ordered_pair_of_dates_is_prepared(site: SiteConfig) -> None:
    store = open_store(site.cache)
    pairs = [p for split in ("train", "validation", "test") for p in store.pairs(split)]  # type: ignore[arg-type]
    assert len(pairs) == len(PATIENTS) * 3
    days = [dt.date.fromisoformat(date).toordinal() for date in RADII]
    wanted = {float(b - a) for a, b in combinations(days, 2)}
    assert {p.interval_days for p in pairs} == wanted
    for pair in pairs:
        assert pair.baseline.shape == (32, 32, 32)
        assert 0 <= pair.baseline.min() < pair.baseline.max() <= 1
        assert pair.baseline_mask.sum() == pytest.approx(pair.baseline_volume_mm3, rel=0.01)
        assert pair.follow_up_mask.sum() == pytest.approx(pair.follow_up_volume_mm3, rel=0.01)
        z, y, x = (np.argwhere(pair.baseline_mask).mean(axis=0) - 15.5).tolist()
        assert max(abs(z), abs(y), abs(x)) < 0.2
        core = pair.baseline[15:17, 15:17, 15:17]
        np.testing.assert_allclose(core, (40 + 1024) / 1424, atol=1e-3)


def test_volumes_are_those_of_the_native_grid(site: SiteConfig) -> None:
    native = {
        round(nodule_volume_mm3(crop_mask(ball(GRID, middle(GRID), r + 0.1 * k), GRID)), 3)
        for r in RADII.values()
        for k in range(len(PATIENTS))
    }
    records = open_store(site.cache).index.records
    assert {round(r.baseline_volume_mm3, 3) for r in records} <= native


def test_no_patient_is_in_two_splits_and_none_is_empty(site: SiteConfig) -> None:
    store = open_store(site.cache)
    split_of = {
        s: {r.patient_id for r in store.records(s)} for s in ("train", "validation", "test")
    }  # type: ignore[arg-type]
    assert sum(len(v) for v in split_of.values()) == len(set.union(*split_of.values()))
    assert all(split_of.values())


def test_nothing_of_patients_names_dates_or_paths_is_in_the_cache(site: SiteConfig) -> None:
    words = ["SECRET", "Secret", "studies", "mask.nrrd", str(site.studies.parent)]
    words += [form for date in RADII for form in (date, date.replace("-", ""))]
    files = [f for f in site.cache.rglob("*") if f.is_file()]
    assert len(files) > len(PATIENTS)
    for file in files:
        content = file.read_bytes() + file.name.encode()
        assert not [word for word in words if word.encode() in content]


def test_a_second_run_reuses_all_and_gives_the_same_bits(site: SiteConfig) -> None:
    before = open_store(site.cache).fingerprint
    again, examination = prepare_site_with_report(site)
    assert all(outcome.reused for outcome in examination.outcomes)
    assert again.fingerprint == before
    shutil.rmtree(site.cache)
    assert prepare_site(site).fingerprint == before


def test_workers_give_the_same_bits_as_one_process(site: SiteConfig) -> None:
    before = open_store(site.cache).fingerprint
    shutil.rmtree(site.cache)
    told: list[tuple[int, int, str]] = []
    many = site.model_copy(update={"preparation": preparation(2)})
    store = prepare_site(many, progress=lambda *step: told.append(step))
    assert store.fingerprint == before
    assert [done for done, _, _ in told] == list(range(len(PATIENTS) + 1))
    assert not [what for _, _, what in told if "SECRET" in what]


def test_an_interrupted_run_goes_on_where_it_was(site: SiteConfig) -> None:
    before = open_store(site.cache).fingerprint
    (site.cache / "index.json").unlink()
    lost = sorted((site.cache / "pairs").glob("*.npz"))[::3]
    for file in lost:
        file.write_bytes(file.read_bytes()[:1000])
    store, examination = prepare_site_with_report(site)
    assert sum(not outcome.reused for outcome in examination.outcomes) == len(lost)
    assert store.fingerprint == before


def test_a_changed_file_is_noticed_and_only_its_pairs_are_remade(site: SiteConfig) -> None:
    folder = site.studies.parent / PATIENTS[0] / "2020-06-07"
    write_image(folder / "mask.nrrd", ball(GRID, middle(GRID), 6.5), GRID)
    store, examination = prepare_site_with_report(site)
    remade = [o for o in examination.outcomes if not o.reused]
    assert {o.patient for o in remade} == {PATIENTS[0]}
    assert len(remade) == 2  # of three pairs two have that date
    assert len(store.index.records) == 3 * len(PATIENTS)


def test_values_apart_from_their_header_count_as_the_image(tmp_path: Path) -> None:
    lines = ["patient,nodule,date,image,mask"]
    for seed, patient in enumerate(PATIENTS[:2]):
        for date, radius in (("2020-01-01", 4.0), ("2021-01-01", 5.0)):
            place, mask = tmp_path / patient / date, ball(GRID, middle(GRID), radius)
            hu = np.where(mask, 40, tissue(seed)).astype(np.int16)
            write_image(place / "ct.mhd", hu, GRID)  # the headers of all four are alike
            write_image(place / "mask.nhdr", mask, GRID)
            lines.append(f"{patient},n,{date},{patient}/{date}/ct.mhd,{patient}/{date}/mask.nhdr")
    (tmp_path / "studies.csv").write_text("\n".join(lines))
    _, examination = prepare_site_with_report(config_of(tmp_path))
    assert [outcome.status for outcome in examination.outcomes] == ["ok", "ok"]
    changed = tmp_path / PATIENTS[0] / "2021-01-01" / "mask.nhdr"
    write_image(changed, ball(GRID, middle(GRID), 6.0), GRID)
    _, examination = prepare_site_with_report(config_of(tmp_path))
    assert [outcome.reused for outcome in examination.outcomes] == [False, True]


def test_other_settings_remake_every_pair(site: SiteConfig) -> None:
    other = site.model_copy(update={"roi": RoiConfig(size_vox=32, hu_window=(-1000.0, 400.0))})
    _, examination = prepare_site_with_report(other)
    assert not any(outcome.reused for outcome in examination.outcomes)


def refuse_by_tilt(folder: Path) -> str:
    for k, file in enumerate(sorted((folder / "ct").iterdir())):
        edit(file, ImagePositionPatient=[-30, -30 + 0.5 * k, -100 + 2 * k])
    return "sheared"


def refuse_by_empty_mask(folder: Path) -> str:
    write_image(folder / "mask.nrrd", ball(GRID, middle(GRID), 4.0) * 0, GRID)
    return "mask-empty"


def refuse_by_missing_slice(folder: Path) -> str:
    (folder / "ct" / "010").unlink()
    return "missing-slice"


def refuse_by_stored_values(folder: Path) -> str:
    for file in (folder / "ct").iterdir():
        edit(file, RescaleSlope=None, RescaleIntercept=None)
    return "not-hounsfield"


def refuse_by_a_file_that_can_not_be_read(folder: Path) -> str:
    (folder / "ct" / "010").unlink()
    (folder / "ct" / "010").symlink_to("/proc/self/mem")  # opens, but gives an I/O error
    return "unreadable"


def refuse_by_something_that_is_no_file(folder: Path) -> str:
    (folder / "mask.nrrd").unlink()
    os.mkfifo(folder / "mask.nrrd")
    return "missing-file"


def refuse_by_same_ct(folder: Path) -> str:
    shutil.rmtree(folder / "ct")
    shutil.copytree(folder.parent / "2019-04-05" / "ct", folder / "ct")
    return "duplicate-study"


@pytest.mark.parametrize(
    "spoil",
    [
        refuse_by_tilt,
        refuse_by_empty_mask,
        refuse_by_missing_slice,
        refuse_by_stored_values,
        refuse_by_a_file_that_can_not_be_read,
        refuse_by_something_that_is_no_file,
        refuse_by_same_ct,
    ],
)
def test_a_refused_pair_stops_no_other_and_says_why(
    site: SiteConfig, spoil: Callable[[Path], str]
) -> None:
    code = spoil(site.studies.parent / PATIENTS[1] / "2020-06-07")
    store, examination = prepare_site_with_report(site)
    refused = [o for o in examination.outcomes if o.status == "refused"]
    assert 1 <= len(refused) <= 2
    assert {f.code for o in refused for f in o.findings if f.severity == "refused"} == {code}
    assert {o.patient for o in refused} == {PATIENTS[1]}
    assert len(store.index.records) == len(examination.outcomes) - len(refused)


def test_one_ct_under_two_patients_is_refused_for_both(site: SiteConfig) -> None:
    root = site.studies.parent
    shutil.rmtree(root / PATIENTS[1] / "2020-06-07" / "ct")
    shutil.copytree(root / PATIENTS[0] / "2020-06-07" / "ct", root / PATIENTS[1] / "2020-06-07/ct")
    outcomes = examine_site(site).outcomes
    leaking = {o.patient for o in outcomes if any(f.code == "patient-leak" for f in o.findings)}
    assert leaking == set(PATIENTS[:2])
    assert all(o.status == "refused" for o in outcomes if o.patient in leaking)


def test_dates_that_differ_from_the_headers_are_warned_of(site: SiteConfig) -> None:
    place = site.studies.parent / PATIENTS[0]
    for date, tag in (("2019-04-05", "20200607"), ("2020-06-07", "20190405")):  # swapped
        for file in (place / date / "ct").iterdir():
            edit(file, AcquisitionDate=tag)
    outcomes = examine_site(site).outcomes
    warned = {o.lines: f for o in outcomes for f in o.findings if f.code == "dates-differ"}
    assert {o.patient for o in outcomes if o.lines in warned} == {PATIENTS[0]}
    assert warned[2, 3].message == "429 days by the table, -429 by the headers of the CTs"


def test_no_usable_pair_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    site = write_site(tmp_path, PATIENTS[:1])
    for date in list(RADII)[:2]:
        refuse_by_tilt(tmp_path / PATIENTS[0] / date)
    with pytest.raises(SiteDataError, match=r"all 3 pairs were refused .*sheared") as caught:
        prepare_site(site)
    assert caught.value.code == "no-usable-pair"
    site.studies.write_text("\n".join(site.studies.read_text().splitlines()[:2]) + "\n")
    with pytest.raises(SiteDataError, match="no nodule has two dates"):
        prepare_site(site)


def test_what_became_of_each_pair_stays_in_the_state_folder(site: SiteConfig) -> None:
    prepare_site(site)
    report = json.loads((site.state / "prepare-report.json").read_text())
    assert len(report["pairs"]) == len(PATIENTS) * 3
    assert (site.state / "prepare-report.json").stat().st_mode & 0o077 == 0


def test_a_state_folder_that_can_not_be_written_is_named(site: SiteConfig) -> None:
    (site.state / "splits.json").unlink()
    (site.state / "splits.json").mkdir()
    with pytest.raises(SiteDataError, match=r"splits\.json.*'state' in site\.yaml") as caught:
        prepare_site(site)
    assert caught.value.code == "state-write"
