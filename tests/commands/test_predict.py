from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from nognet.data.ct.image import read_ct
from nognet.data.masks.reading import read_mask
from nognet.data.sitk_bridge import to_sitk
from nognet.errors import ConfigError, GeometryError, NognetError, SiteDataError, WireError
from nognet.fit.baseline import read_baseline
from nognet.fit.follow_up import doubling_time_days, nodule_figures
from nognet.fit.model_file import load_model, save_model
from tests.builders.ct_files import geometry
from tests.builders.predict_files import (
    CENTRE,
    GRID,
    ROI,
    SHIFT_ZYX_VOX,
    ellipsoid,
    lively_weights,
    predict,
    write_model,
    write_study,
)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def read(path: Path) -> np.ndarray:
    return np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(str(path))))


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predict")
    result = predict(write_model(folder), write_study(folder / "s"), folder / "out", 365, 0)
    assert result.exit_code == 0, result.output
    return folder


def test_at_0_days_it_is_the_baseline_bit_for_bit(predicted: Path) -> None:
    out = predicted / "out"
    for kind in ("hu", "mask"):
        now, then = (
            read(out / f"baseline_{kind}.nii.gz"),
            read(out / "days_0" / f"follow_up_{kind}.nii.gz"),
        )
        assert np.array_equal(now, then)
    assert not read(out / "days_0" / "displacement_lps_mm.mha").any()
    baseline = read_baseline(predicted / "s" / "ct.mha", predicted / "s" / "mask.mha", ROI)
    hu = baseline.image * np.float32(1424) - np.float32(1024)
    assert np.array_equal(read(out / "baseline_hu.nii.gz"), hu)
    later = read(out / "days_365" / "follow_up_mask.nii.gz")
    assert later.sum() > 1.2 * baseline.mask.sum()


def test_mask_and_image_lie_on_the_native_nodule_of_an_oblique_ct(predicted: Path) -> None:
    ct = sitk.ReadImage(str(predicted / "s" / "ct.mha"), sitk.sitkFloat32)
    native = read(predicted / "s" / "mask.mha").astype(bool)
    folder = predicted / "out" / "days_0"
    mask = sitk.ReadImage(str(folder / "follow_up_mask.nii.gz"), sitk.sitkFloat32)
    back = sitk.GetArrayFromImage(sitk.Resample(mask, ct, sitk.Transform(), sitk.sitkLinear)) > 0.5
    assert dice(back, native) > 0.97  # 0.989; 0.95 when half a millimetre astray
    image = sitk.ReadImage(str(folder / "follow_up_hu.nii.gz"))
    hu = sitk.GetArrayFromImage(sitk.Resample(image, ct, sitk.Transform(), sitk.sitkLinear, -1e4))
    seen = hu > -2000
    assert seen.mean() > 0.1
    clipped = np.clip(sitk.GetArrayFromImage(ct), -1024, 400)
    # two resamplings average noise and soften the edge: 0.959; 0.94 when half a mm astray
    assert np.corrcoef(hu[seen], clipped[seen])[0, 1] > 0.95


def test_a_model_of_a_rehearsal_is_called_one(predicted: Path, tmp_path: Path) -> None:
    saved = load_model(predicted / "model.nognet")
    model = tmp_path / "rehearsed.nognet"
    marks = {**saved.provenance, "rehearsal": True}
    save_model(model, saved.weights, network=saved.network, roi=saved.roi, provenance=marks)
    study = predicted / "s" / "ct.mha", predicted / "s" / "mask.mha"
    result = predict(model, study, tmp_path / "out", 0)
    assert result.exit_code == 0, result.output
    assert f"warning: {model} is of a rehearsal" in result.output


def test_the_field_moves_the_baseline_mask_onto_the_predicted_one(predicted: Path) -> None:
    out = predicted / "out"
    baseline = sitk.ReadImage(str(out / "baseline_mask.nii.gz"), sitk.sitkFloat32)
    field = sitk.ReadImage(str(out / "days_365" / "displacement_lps_mm.mha"))
    components = sitk.GetArrayFromImage(field)
    # what `lively_weights` shifts at 1/4 scale, in x, y, z; growth doesn't move the centre
    middle = components[15:17, 15:17, 15:17].mean((0, 1, 2))
    np.testing.assert_allclose(middle, np.array(SHIFT_ZYX_VOX[::-1]) * 4, atol=0.2)
    transform = sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))
    moved = sitk.GetArrayFromImage(sitk.Resample(baseline, transform, sitk.sitkLinear)) > 0.5
    expected = read(out / "days_365" / "follow_up_mask.nii.gz").astype(bool)
    assert dice(moved, expected) > 0.995


def test_its_figures_follow_from_the_definitions(predicted: Path) -> None:
    document = json.loads((predicted / "out" / "prediction.json").read_text())
    ct = read_ct(predicted / "s" / "ct.mha")
    native = read_mask(predicted / "s" / "mask.mha", ct)
    volume = native.sum() * 0.8 * 0.8 * 1.25
    now, later = document["baseline"], document["follow_up"][1]
    assert now["volume_mm3"] == pytest.approx(volume)
    assert now["effective_diameter_mm"] == pytest.approx((6 * volume / math.pi) ** (1 / 3))
    assert now["mass_mg"] == pytest.approx(volume * (now["mean_hu"] + 1000) / 1000)
    assert now["mean_hu"] == pytest.approx(float(ct.array[native == 1].mean()), abs=60)

    assert [entry["interval_days"] for entry in document["follow_up"]] == [0, 365]
    assert document["follow_up"][0]["growth_ratio"] == 1.0
    assert document["follow_up"][0]["doubling_time_days"] is None
    ratio = later["growth_ratio"]
    voxels = read(predicted / "out" / later["mask"]).sum()
    baseline_voxels = read(predicted / "out" / now["mask"]).sum()
    assert ratio == pytest.approx(voxels / baseline_voxels, rel=0.03)
    assert later["volume_mm3"] == pytest.approx(volume * ratio)
    assert later["doubling_time_days"] == pytest.approx(365 * math.log(2) / math.log(ratio))
    hu = read(predicted / "out" / later["image"])[read(predicted / "out" / later["mask"]) == 1]
    assert later["mean_hu"] == pytest.approx(float(hu.mean()), abs=0.01)


def test_it_says_which_model_and_that_it_is_no_medical_device(predicted: Path) -> None:
    import hashlib

    text = (predicted / "out" / "prediction.json").read_text()
    document = json.loads(text)
    digest = hashlib.sha256((predicted / "model.nognet").read_bytes()).hexdigest()
    assert document["model"]["sha256"] == digest
    assert document["model"]["provenance"] == {"study": "tiny", "round": 7}
    assert document["warning"] == "Research use only; not a medical device."
    assert str(predicted) not in text  # a path may hold a name


@pytest.mark.parametrize(
    ("days", "ratio", "expected"),
    [
        (400.0, 2.0, 400.0),
        (100.0, 4.0, 50.0),
        (365.0, 0.5, -365.0),
        (365.0, 1.249, None),
        (365.0, 0.751, None),
        (365.0, 0.0, None),
        (0.0, 1.0, None),
    ],
)
def test_doubling_time_is_given_for_measurable_change_only(
    days: float, ratio: float, expected: float | None
) -> None:
    assert doubling_time_days(days, ratio) == pytest.approx(expected)


def test_a_vanished_nodule_has_no_density() -> None:
    empty = np.zeros((2, 2, 2), np.uint8)
    figures = nodule_figures(0.0, np.zeros((2, 2, 2), np.float32), empty)
    assert (figures.mean_hu, figures.mass_mg, figures.effective_diameter_mm) == (None, None, 0.0)


def test_a_nodule_that_would_outgrow_the_roi_is_warned_of(tmp_path: Path) -> None:
    model = write_model(tmp_path, growth_bias=1.0)
    result = predict(model, write_study(tmp_path / "s"), tmp_path / "out", 730)
    assert result.exit_code == 0, result.output
    entry = json.loads((tmp_path / "out" / "prediction.json").read_text())["follow_up"][0]
    assert "reaches-edge" in [finding["code"] for finding in entry["findings"]]
    assert "lower bound" in result.stderr


@pytest.mark.parametrize("days", [-1, 7306, "nan", "inf"])
def test_an_interval_that_makes_no_sense_is_refused(tmp_path: Path, days: float) -> None:
    study = write_study(tmp_path / "s")
    result = predict(write_model(tmp_path), study, tmp_path / "out", 365, days)
    assert isinstance(result.exception, ConfigError)
    assert "expected 0 to 7305" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_nodule_that_the_roi_cuts_is_refused(tmp_path: Path) -> None:
    big = np.zeros(GRID.size[::-1], np.uint8)
    big[2:42, 5:60, 5:60] = 1
    study = write_study(tmp_path / "s")
    sitk.WriteImage(to_sitk(big, GRID), str(study[1]))
    result = predict(write_model(tmp_path), study, tmp_path / "out", 365)
    assert isinstance(result.exception, SiteDataError)
    assert result.exception.code == "nodule-cut"
    assert "32 mm" in str(result.exception)


def test_an_empty_mask_is_refused(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    sitk.WriteImage(to_sitk(np.zeros(GRID.size[::-1], np.uint8), GRID), str(study[1]))
    result = predict(write_model(tmp_path), study, tmp_path / "out", 365)
    assert isinstance(result.exception, SiteDataError)
    assert result.exception.code == "mask-empty"


def test_a_mask_that_lies_elsewhere_is_refused(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    elsewhere = geometry(GRID.size, GRID.spacing_mm, origin=(500.0, 0.0, 0.0))
    sitk.WriteImage(to_sitk(ellipsoid(GRID, CENTRE), elsewhere), str(study[1]))
    result = predict(write_model(tmp_path), study, tmp_path / "out", 365)
    assert isinstance(result.exception, GeometryError)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.nognet").write_text("not a model")
    result = predict(tmp_path / "model.nognet", write_study(tmp_path / "s"), tmp_path / "out", 365)
    assert isinstance(result.exception, WireError)
    assert not (tmp_path / "out").exists()


def test_a_model_that_predicts_nan_writes_no_prediction(tmp_path: Path) -> None:
    weights = lively_weights(growth_bias=math.nan)
    model = write_model(tmp_path, weights=weights)
    result = predict(model, write_study(tmp_path / "s"), tmp_path / "out", 365)
    assert isinstance(result.exception, NognetError)
    assert result.exception.code == "prediction-not-finite"
    assert not (tmp_path / "out" / "prediction.json").exists()


def test_a_prediction_that_is_there_is_replaced_only_with_force(tmp_path: Path) -> None:
    model, study, out = write_model(tmp_path), write_study(tmp_path / "s"), tmp_path / "out"
    assert predict(model, study, out, 365, 100).exit_code == 0
    refused: Any = predict(model, study, out, 365).exception
    assert "--force" in str(refused)
    assert predict(model, study, out, 365, more=("--force",)).exit_code == 0
    assert not list((out / "days_100").glob("*"))
