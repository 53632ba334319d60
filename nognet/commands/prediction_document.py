"""What `nognet predict` says: `prediction.json`, and the same as a table."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nognet.commands.prediction_files import FIELD_NAME

if TYPE_CHECKING:
    from nognet.data.findings import Finding
    from nognet.fit.baseline import Baseline
    from nognet.fit.calibration import Calibration
    from nognet.fit.follow_up import Horizon, NoduleFigures
    from nognet.fit.model_file import SavedModel
    from nognet.fit.prior import CutPrior

SCHEMA_VERSION = 1
WARNING = "Research use only; not a medical device."
DEFINITIONS = {
    "volume_mm3": "baseline: voxels of the mask on the CT's own grid; predicted: that volume times "
    "growth_ratio",
    "growth_ratio": "sum of the predicted mask's probabilities over the ROI / voxels of the "
    "baseline mask there",
    "doubling_time_days": "interval x ln 2 / ln(growth_ratio), only where the volume changes by "
    "25 % or more; negative for a shrinking nodule",
    "mass_mg": "volume x mean density over the mask, density = (HU + 1000) / 1000 mg/mm3, HU "
    "within the model's window",
    "effective_diameter_mm": "of a ball of the volume",
    "follow_up_hu": "predicted ROI in HU, 1 mm, in the frame of the baseline CT",
    "volume_interval_mm3": "volume x exp(-+ factor x predicted spread of ln V); factor by split "
    "conformal prediction on validation patients, so it holds for nodules like theirs",
    "mask": "probability of nodule > 0.5",
    "displacement_lps_mm": "pull-back: the predicted ROI at p shows the baseline at p + d(p); "
    "components x, y, z in LPS millimetres",
}


@dataclass(frozen=True)
class Predicted:
    """What was predicted, and from what.

    Attributes:
        path: The model's file.
        model: What is in it.
        baseline: The nodule at the time at hand.
        figures: Its volume, diameter, density and mass.
        prior: The scan before; None where none was given.
        calibration: What the volume's interval stands on; None where it has none.
        horizons: The predictions, each with the name of its folder.
    """

    path: Path
    model: SavedModel
    baseline: Baseline
    figures: NoduleFigures
    prior: CutPrior | None
    calibration: Calibration | None
    horizons: tuple[tuple[Horizon, str], ...]


def document_of(predicted: Predicted) -> dict[str, Any]:
    """Give the whole of `prediction.json`."""
    calibration = predicted.calibration
    return {
        "schema_version": SCHEMA_VERSION,
        "warning": WARNING,
        "model": _model_entry(predicted.path, predicted.model),
        "baseline": {
            **asdict(predicted.figures),
            "image": "baseline_hu.nii.gz",
            "mask": "baseline_mask.nii.gz",
            "findings": _findings_entry(predicted.baseline.findings),
        },
        "prior": _prior_entry(predicted.prior),
        "roi": _roi_entry(predicted.baseline, predicted.model),
        "interval_calibration": _calibration_entry(calibration),
        "follow_up": [_horizon_entry(*horizon, calibration) for horizon in predicted.horizons],
        "definitions": DEFINITIONS,
    }


def _horizon_entry(
    horizon: Horizon, folder: str, calibration: Calibration | None
) -> dict[str, Any]:
    interval = horizon.volume_interval_mm3
    return {
        "interval_days": horizon.interval_days,
        **asdict(horizon.figures),
        "volume_interval_mm3": None if interval is None else list(interval),
        "interval_coverage_nominal": None if calibration is None else calibration.coverage,
        "growth_ratio": horizon.growth_ratio,
        "doubling_time_days": horizon.doubling_time_days,
        "folded_fraction": horizon.folded_fraction,
        "image": f"{folder}/follow_up_hu.nii.gz",
        "mask": f"{folder}/follow_up_mask.nii.gz",
        "displacement": f"{folder}/{FIELD_NAME}",
        "findings": _findings_entry(horizon.findings),
    }


def _calibration_entry(calibration: Calibration | None) -> dict[str, Any] | None:
    """Say where the interval was calibrated, and on how many patients; never on whom."""
    if calibration is None:
        return None
    return {
        "site": calibration.site,
        "split": "validation",
        "n_patients": calibration.n_patients,
        "n_pairs": calibration.n_pairs,
        "coverage_nominal": calibration.coverage,
        "factor": calibration.factor,
    }


def _prior_entry(prior: CutPrior | None) -> dict[str, Any] | None:
    if prior is None:
        return None
    return {
        "days_before": prior.scan.days_before,
        **prior.quality,
        "image": "prior_hu.nii.gz",
        "mask": "prior_mask.nii.gz",
        "findings": _findings_entry(prior.findings),
    }


def _model_entry(path: Path, saved: SavedModel) -> dict[str, Any]:
    import nognet

    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "sha256": digest,
        "provenance": dict(saved.provenance),
        "network": saved.network.model_dump(mode="json"),
        "predicted_with": f"nognet {nognet.__version__}",
    }


def _roi_entry(baseline: Baseline, saved: SavedModel) -> dict[str, Any]:
    return {
        "size_vox": saved.roi.size_vox,
        "hu_window": list(saved.roi.hu_window),
        "spacing_mm": list(baseline.grid.spacing_mm),
        "origin_lps_mm": list(baseline.grid.origin_mm),
    }


def _findings_entry(findings: tuple[Finding, ...]) -> list[dict[str, str]]:
    """Give codes and messages; messages of reading can name files, so theirs is the code's text."""
    from nognet.data.findings import CODES

    return [{"code": f.code, "message": CODES.get(f.code, f.message)} for f in findings]


def table_lines(document: dict[str, Any]) -> Iterator[str]:
    """Write the figures as a table, and below it what the interval stands on."""
    yield (
        f"{'days':>6}{'mm3':>10}{'interval, mm3':>18}{'mm':>7}{'mg':>9}{'ratio':>8}"
        f"{'doubling, days':>16}"
    )
    for entry in ({"interval_days": "now", **document["baseline"]}, *document["follow_up"]):
        days = entry["interval_days"]
        mass = "-" if entry["mass_mg"] is None else f"{entry['mass_mg']:.1f}"
        ratio = f"{entry['growth_ratio']:.2f}" if "growth_ratio" in entry else ""
        doubling = entry.get("doubling_time_days")
        ends = entry.get("volume_interval_mm3")
        interval = f"{ends[0]:.1f} to {ends[1]:.1f}" if ends else ""
        yield (
            f"{days if isinstance(days, str) else format(days, 'g'):>6}{entry['volume_mm3']:10.1f}"
            f"{interval:>18}{entry['effective_diameter_mm']:7.1f}{mass:>9}{ratio:>8}"
            f"{'' if doubling is None else f'{doubling:.0f}':>16}"
        )
    yield _interval_line(document["interval_calibration"])
    yield WARNING


def _interval_line(calibration: dict[str, Any] | None) -> str:
    if calibration is None:
        return "interval: not calibrated; give --calibrate-on site.yaml"
    return (
        f"interval: nominal {100 * calibration['coverage_nominal']:g} %, calibrated on "
        f"{calibration['n_patients']} validation patients ({calibration['n_pairs']} pairs) of "
        f"{calibration['site']}"
    )
