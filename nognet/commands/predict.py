"""`nognet predict`: how a nodule is predicted to look at later dates."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nognet.console import emit, say

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nognet.data.findings import Finding
    from nognet.fit.baseline import Baseline
    from nognet.fit.follow_up import Horizon
    from nognet.fit.model_file import SavedModel
    from nognet.types import Geometry

SCHEMA_VERSION = 1
FILE_NAME = "prediction.json"
FIELD_NAME = "displacement_lps_mm.mha"
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
    "mask": "probability of nodule > 0.5",
    "displacement_lps_mm": "pull-back: the predicted ROI at p shows the baseline at p + d(p); "
    "components x, y, z in LPS millimetres",
}


@dataclass(frozen=True)
class _Asked:
    """What the command line asks for."""

    model: Path
    image: Path
    mask: Path
    segment: str | None
    intervals: tuple[float, ...]
    out: Path


def predict(  # noqa: PLR0913, PLR0917  one parameter an option, typer passes them by name
    model: Annotated[Path, typer.Option(help="A .nognet model.")],
    image: Annotated[Path, typer.Option(help="The CT: DICOM folder, NIfTI, NRRD or MHA.")],
    mask: Annotated[Path, typer.Option(help="Its nodule: DICOM SEG, RTSTRUCT or an image.")],
    interval_days: Annotated[
        list[float], typer.Option(help="Days from the CT to the prediction; may be repeated.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write the prediction to.")],
    segment: Annotated[
        str | None, typer.Option(help="Number or name of the segment, where there are several.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    force: Annotated[
        bool, typer.Option("--force", help="Replace a prediction that is already there.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print prediction.json.")] = False,
) -> None:
    """Predict a nodule's follow-up: ROI in HU, mask, displacement field and figures.

    Research use only; not a medical device.
    """
    from nognet.commands.train_record import check_folder_is_free
    from nognet.fit.follow_up import check_intervals

    if device not in ("auto", "cpu", "cuda", "mps"):
        raise typer.BadParameter(f"'{device}' is none of auto, cpu, cuda, mps", param_hint="device")
    asked = _Asked(model, image, mask, segment, check_intervals(interval_days), out)
    check_folder_is_free(out, (FILE_NAME,), force=force)
    document = _predict(asked, device)
    if as_json:
        emit(json.dumps(document, indent=2, allow_nan=False))
    else:
        for line in _lines(document):
            emit(line)
    say(f"written to {out}")


def _predict(asked: _Asked, device: Any) -> dict[str, Any]:  # noqa: ANN401  checked by the caller
    """Read, predict, and write image by image; prediction.json comes last."""
    from nognet.files import write_json_atomic
    from nognet.fit.baseline import read_baseline
    from nognet.fit.device import resolve_device
    from nognet.fit.follow_up import nodule_figures, predict_follow_up, to_hu
    from nognet.fit.model_file import load_model

    saved = load_model(asked.model)
    where = resolve_device(device)
    baseline = read_baseline(asked.image, asked.mask, saved.roi, segment=asked.segment)
    for finding in baseline.findings:
        say(f"warning: {finding.message}")
    _forget_earlier(asked.out)
    baseline_hu = to_hu(baseline.image, saved.roi)
    _write_images(asked.out, "baseline", baseline.grid, hu=baseline_hu, mask=baseline.mask)
    horizons = []
    for horizon in predict_follow_up(saved, baseline, asked.intervals, device=where):
        folder = asked.out / f"days_{horizon.interval_days:g}"
        _write_images(folder, "follow_up", baseline.grid, hu=horizon.image_hu, mask=horizon.mask)
        _write_field(folder, baseline.grid, horizon.displacement_lps_mm)
        horizons.append(_horizon_entry(horizon, folder.name))
        for finding in horizon.findings:
            say(f"warning: at {horizon.interval_days:g} days: {finding.message}")
    figures = nodule_figures(baseline.volume_mm3, baseline_hu, baseline.mask)
    document = {
        "schema_version": SCHEMA_VERSION,
        "warning": WARNING,
        "model": _model_entry(asked.model, saved),
        "baseline": {
            **asdict(figures),
            "image": "baseline_hu.nii.gz",
            "mask": "baseline_mask.nii.gz",
            "findings": _findings(baseline.findings),
        },
        "roi": _roi_entry(baseline, saved),
        "follow_up": horizons,
        "definitions": DEFINITIONS,
    }
    write_json_atomic(asked.out / FILE_NAME, document)
    return document


def _horizon_entry(horizon: Horizon, folder: str) -> dict[str, Any]:
    return {
        "interval_days": horizon.interval_days,
        **asdict(horizon.figures),
        "growth_ratio": horizon.growth_ratio,
        "doubling_time_days": horizon.doubling_time_days,
        "folded_fraction": horizon.folded_fraction,
        "image": f"{folder}/follow_up_hu.nii.gz",
        "mask": f"{folder}/follow_up_mask.nii.gz",
        "displacement": f"{folder}/{FIELD_NAME}",
        "findings": _findings(horizon.findings),
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


def _findings(findings: tuple[Finding, ...]) -> list[dict[str, str]]:
    """Give codes and messages; messages of reading can name files, so theirs is the code's text."""
    from nognet.data.findings import CODES

    return [{"code": f.code, "message": CODES.get(f.code, f.message)} for f in findings]


def _forget_earlier(out: Path) -> None:
    """Remove an earlier prediction's files, so that no horizon of another model stays among new."""
    (out / FILE_NAME).unlink(missing_ok=True)
    for name in ("follow_up_hu.nii.gz", "follow_up_mask.nii.gz", FIELD_NAME):
        for file in out.glob(f"days_*/{name}"):
            file.unlink()


def _write_images(
    folder: Path, name: str, grid: Geometry, *, hu: NDArray[np.float32], mask: NDArray[np.uint8]
) -> None:
    from nognet.data.sitk_bridge import to_sitk

    _write(folder / f"{name}_hu.nii.gz", to_sitk(hu, grid))
    _write(folder / f"{name}_mask.nii.gz", to_sitk(mask, grid))


def _write_field(folder: Path, grid: Geometry, field: NDArray[np.float32]) -> None:
    """Write as MHA: NIfTI readers differ in whether they turn a vector's components to RAS."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(field, isVector=True)
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin(grid.origin_mm)
    _write(folder / FIELD_NAME, image)


def _write(path: Path, image: Any) -> None:  # noqa: ANN401  SimpleITK has no types
    import SimpleITK as sitk

    from nognet.errors import NognetError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image, str(path), useCompression=True)
    except (RuntimeError, OSError) as err:
        raise NognetError(f"{path}: can't be written ({type(err).__name__})", code="write") from err


def _lines(document: dict[str, Any]) -> Iterator[str]:
    yield f"{'days':>6}{'mm3':>10}{'mm':>7}{'mg':>9}{'ratio':>8}{'doubling, days':>16}"
    for entry in ({"interval_days": "now", **document["baseline"]}, *document["follow_up"]):
        days = entry["interval_days"]
        mass = "-" if entry["mass_mg"] is None else f"{entry['mass_mg']:.1f}"
        ratio = f"{entry['growth_ratio']:.2f}" if "growth_ratio" in entry else ""
        doubling = entry.get("doubling_time_days")
        yield (
            f"{days if isinstance(days, str) else format(days, 'g'):>6}{entry['volume_mm3']:10.1f}"
            f"{entry['effective_diameter_mm']:7.1f}{mass:>9}{ratio:>8}"
            f"{'' if doubling is None else f'{doubling:.0f}':>16}"
        )
    yield WARNING
