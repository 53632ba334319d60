from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import Result

from nognet.config import RoiConfig
from nognet.errors import ConfigError, SiteDataError
from tests.builders.federation import make_site
from tests.builders.predict_files import NETWORK, predict, write_model, write_study
from tests.builders.site_files import GRID, Scan, nodule, write_scan

WITH_PRIOR = NETWORK.model_copy(update={"prior_scan": True})
MIDDLE = (0.0, 0.0, 0.0)
Study = tuple[Path, Path]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Study]:
    """Baseline and earlier scan of one patient."""
    folder = tmp_path_factory.mktemp("scans")
    found = []
    for date, radius in (("2021-01-01", 5.2), ("2020-01-01", 4.2)):
        write_scan(folder / date, Scan(date, {"n": (MIDDLE, radius)}))
        found.append((folder / date / "ct", folder / date / "n.nrrd"))
    return found[0], found[1]


def prior_options(study: Study, days: float = 366) -> tuple[str, ...]:
    return (
        "--prior-image", str(study[0]), "--prior-mask", str(study[1]),
        "--prior-days-before", str(days),
    )  # fmt: skip


def document(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "prediction.json").read_text())
    return found


def read(path: Path) -> np.ndarray:
    return np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(str(path))))


def refusal(result: Result) -> ConfigError:
    assert isinstance(result.exception, ConfigError), result.output
    return result.exception


def test_a_prior_scan_is_aligned_shown_and_changes_the_prediction(
    tmp_path: Path, scans: tuple[Study, Study]
) -> None:
    now, before = scans
    model = write_model(tmp_path, network=WITH_PRIOR)
    without, out = tmp_path / "without", tmp_path / "with"
    assert predict(model, now, without, 0, 365).exit_code == 0
    result = predict(model, now, out, 0, 365, more=prior_options(before))
    assert result.exit_code == 0, result.output
    assert document(without)["prior"] is None
    entry = document(out)["prior"]
    assert entry["days_before"] == 366
    assert entry["ncc"] > 0.9
    native_mm3 = nodule(MIDDLE, 4.2).sum() * GRID.voxel_volume_mm3
    assert read(out / entry["mask"]).sum() == pytest.approx(native_mm3, rel=0.02)
    ratios = [[h["growth_ratio"] for h in document(o)["follow_up"]] for o in (without, out)]
    assert ratios[0][0] == ratios[1][0] == 1.0  # at 0 days it is the baseline all the same
    assert ratios[0][1] != pytest.approx(ratios[1][1], abs=1e-6)
    assert str(tmp_path) not in (out / "prediction.json").read_text()


def test_another_prior_scan_leaves_no_image_of_the_earlier_one(
    tmp_path: Path, scans: tuple[Study, Study]
) -> None:
    model, out = write_model(tmp_path, network=WITH_PRIOR), tmp_path / "out"
    assert predict(model, scans[0], out, 100, more=prior_options(scans[1])).exit_code == 0
    assert (out / "prior_hu.nii.gz").exists()
    assert predict(model, scans[0], out, 100, more=("--force",)).exit_code == 0
    assert not list(out.glob("prior_*"))


@pytest.mark.parametrize("left_out", [0, 2, 4])
def test_a_part_of_a_prior_scan_is_refused_and_what_is_missing_is_named(
    tmp_path: Path, scans: tuple[Study, Study], left_out: int
) -> None:
    options = list(prior_options(scans[1]))
    name = options[left_out]
    del options[left_out : left_out + 2]
    model = write_model(tmp_path, network=WITH_PRIOR)
    error = refusal(predict(model, scans[0], tmp_path / "out", 365, more=tuple(options)))
    assert (error.code, error.exit_code) == ("prior-incomplete", 3)
    assert f"missing: {name}; give all three, or none" in str(error)
    assert not (tmp_path / "out").exists()


def test_a_segment_alone_is_no_prior_scan(tmp_path: Path, scans: tuple[Study, Study]) -> None:
    model = write_model(tmp_path, network=WITH_PRIOR)
    more = ("--prior-segment", "1")
    error = refusal(predict(model, scans[0], tmp_path / "out", 365, more=more))
    assert error.code == "prior-incomplete"


def test_a_model_that_takes_no_prior_scan_refuses_one(
    tmp_path: Path, scans: tuple[Study, Study]
) -> None:
    model = write_model(tmp_path)
    result = predict(model, scans[0], tmp_path / "out", 365, more=prior_options(scans[1]))
    error = refusal(result)
    assert (error.code, error.exit_code) == ("prior-not-taken", 3)
    assert not (tmp_path / "out").exists()


def test_without_calibration_there_is_no_interval_and_a_line_says_how_to_get_one(
    tmp_path: Path,
) -> None:
    result = predict(write_model(tmp_path), write_study(tmp_path / "s"), tmp_path / "out", 365)
    assert "interval: not calibrated; give --calibrate-on site.yaml" in result.stdout
    found = document(tmp_path / "out")
    assert found["interval_calibration"] is None
    assert found["follow_up"][0]["volume_interval_mm3"] is None
    assert found["follow_up"][0]["interval_coverage_nominal"] is None


def test_calibrated_on_a_site_each_horizon_has_an_interval(tmp_path: Path) -> None:
    site = make_site(tmp_path, "alpha", pairs=14)
    more = ("--calibrate-on", str(site))
    model, study, out = write_model(tmp_path), write_study(tmp_path / "s"), tmp_path / "out"
    result = predict(model, study, out, 0, 365, 730, more=more)
    assert result.exit_code == 0, result.output
    found = document(out)
    calibration = found["interval_calibration"]
    assert {k: calibration[k] for k in ("site", "split", "n_patients", "n_pairs")} == {
        "site": "alpha", "split": "validation", "n_patients": 4, "n_pairs": 4,
    }  # fmt: skip
    assert calibration["coverage_nominal"] == 0.8
    now, *later = found["follow_up"]
    assert now["volume_interval_mm3"] == pytest.approx([now["volume_mm3"]] * 2)
    for horizon in later:
        low, high = horizon["volume_interval_mm3"]
        assert low < horizon["volume_mm3"] < high
        assert np.sqrt(low * high) == pytest.approx(horizon["volume_mm3"])
        assert horizon["interval_coverage_nominal"] == 0.8
        assert f"{low:.1f} to {high:.1f}" in result.stdout
    line = "interval: nominal 80 %, calibrated on 4 validation patients (4 pairs) of alpha"
    assert line in result.stdout
    text = (out / "prediction.json").read_text()
    assert not [i for i in range(14) if f"{i:06x}" in text.replace(found["model"]["sha256"], "")]


def test_a_lower_coverage_gives_a_narrower_interval(tmp_path: Path) -> None:
    site = make_site(tmp_path, "alpha", pairs=14)
    model, study = write_model(tmp_path), write_study(tmp_path / "s")
    widths = []
    for coverage in ("0.8", "0.3"):
        more = ("--calibrate-on", str(site), "--coverage", coverage)
        assert predict(model, study, tmp_path / coverage, 365, more=more).exit_code == 0
        horizon = document(tmp_path / coverage)["follow_up"][0]
        assert horizon["interval_coverage_nominal"] == float(coverage)
        low, high = horizon["volume_interval_mm3"]
        widths.append(high / low)
    assert widths[0] > widths[1] >= 1.0


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (("--coverage", "0.9"), "too-few-patients"),
        (("--coverage", "1.0"), "coverage"),
    ],
)
def test_a_coverage_that_can_not_be_had_is_refused(
    tmp_path: Path, more: tuple[str, ...], code: str
) -> None:
    site = make_site(tmp_path, "alpha", pairs=14)
    options = ("--calibrate-on", str(site), *more)
    result = predict(
        write_model(tmp_path), write_study(tmp_path / "s"), tmp_path / "out", 365, more=options
    )
    assert isinstance(result.exception, ConfigError | SiteDataError)
    assert result.exception.code == code
    assert not (tmp_path / "out").exists()


def test_a_coverage_without_a_site_is_refused(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    more = ("--coverage", "0.9")
    error = refusal(predict(write_model(tmp_path), study, tmp_path / "out", 365, more=more))
    assert error.code == "coverage-alone"


def test_a_site_of_another_window_is_refused(tmp_path: Path) -> None:
    site = make_site(tmp_path, "alpha", pairs=14)
    model = write_model(tmp_path, roi=RoiConfig(size_vox=32, hu_window=(-1000.0, 400.0)))
    more = ("--calibrate-on", str(site))
    error = refusal(predict(model, write_study(tmp_path / "s"), tmp_path / "out", 365, more=more))
    assert error.code == "roi-differs"
