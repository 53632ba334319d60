"""`nognet predict`: how a nodule is predicted to look at later dates."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nognet.commands.prediction_document import Predicted, document_of, table_lines
from nognet.commands.prediction_files import FILE_NAME, forget_earlier, write_field, write_images
from nognet.console import emit, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from nognet.data.findings import Finding
    from nognet.fit.baseline import Baseline, ReadNodule
    from nognet.fit.calibration import Calibration
    from nognet.fit.follow_up import Horizon
    from nognet.fit.model_file import SavedModel
    from nognet.fit.prior import CutPrior

DEFAULT_COVERAGE = 0.8


@dataclass(frozen=True)
class _Scan:
    """A CT and its nodule; of a prior scan also the days from it to the baseline."""

    image: Path
    mask: Path
    segment: str | None
    days_before: float = 0.0


@dataclass(frozen=True)
class _Asked:
    """What the command line asks for."""

    model: Path
    baseline: _Scan
    prior: _Scan | None
    intervals: tuple[float, ...]
    out: Path
    calibrate_on: Path | None
    coverage: float


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
    prior_image: Annotated[
        Path | None,
        typer.Option(help="An earlier CT, for a model with network.prior_scan: true."),
    ] = None,
    prior_mask: Annotated[Path | None, typer.Option(help="The nodule on the earlier CT.")] = None,
    prior_days_before: Annotated[
        float | None, typer.Option(help="Days from the earlier CT to the CT.")
    ] = None,
    prior_segment: Annotated[
        str | None, typer.Option(help="Its segment, where the earlier mask has several.")
    ] = None,
    calibrate_on: Annotated[
        Path | None,
        typer.Option(help="A prepared site's site.yaml: its validation patients give an interval."),
    ] = None,
    coverage: Annotated[
        float | None,
        typer.Option(help=f"Nominal coverage of the interval, by default {DEFAULT_COVERAGE}."),
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
    asked = _Asked(
        model,
        _Scan(image, mask, segment),
        _prior_asked(prior_image, prior_mask, prior_days_before, prior_segment),
        check_intervals(interval_days),
        out,
        calibrate_on,
        _coverage_asked(coverage, calibrate_on),
    )
    check_folder_is_free(out, (FILE_NAME,), force=force)
    document = _predict(asked, device)
    if as_json:
        emit(json.dumps(document, indent=2, allow_nan=False))
    else:
        for line in table_lines(document):
            emit(line)
    say(f"written to {out}")


def _prior_asked(
    image: Path | None, mask: Path | None, days_before: float | None, segment: str | None
) -> _Scan | None:
    """Want all three of a prior scan, or none."""
    from nognet.errors import ConfigError

    if image is not None and mask is not None and days_before is not None:
        return _Scan(image, mask, segment, days_before)
    given = {
        "--prior-image": image,
        "--prior-mask": mask,
        "--prior-days-before": days_before,
    }
    if segment is None and all(value is None for value in given.values()):
        return None
    missing = ", ".join(name for name, value in given.items() if value is None)
    raise ConfigError(
        f"a prior scan needs --prior-image, --prior-mask and --prior-days-before; missing: "
        f"{missing}; give all three, or none",
        code="prior-incomplete",
    )


def _coverage_asked(coverage: float | None, calibrate_on: Path | None) -> float:
    from nognet.errors import ConfigError
    from nognet.fit.calibration import check_coverage

    if coverage is not None and calibrate_on is None:
        raise ConfigError(
            "--coverage without --calibrate-on: name the prepared site whose validation patients "
            "the interval is calibrated on, or leave --coverage out",
            code="coverage-alone",
        )
    return check_coverage(DEFAULT_COVERAGE if coverage is None else coverage)


def _predict(asked: _Asked, device: Any) -> dict[str, Any]:  # noqa: ANN401  checked by the caller
    """Read, predict, and write image by image; prediction.json comes last."""
    from nognet.files import write_json_atomic
    from nognet.fit.baseline import cut_baseline
    from nognet.fit.device import resolve_device
    from nognet.fit.follow_up import nodule_figures, predict_follow_up, to_hu
    from nognet.fit.model_file import load_model
    from nognet.fit.prior import check_prior

    saved = load_model(asked.model)
    if saved.provenance.get("rehearsal") is True:
        say(
            f"warning: {asked.model} is of a rehearsal, in which sites failed on purpose: no result"
        )
    where = resolve_device(device)
    if asked.prior is not None:
        check_prior(saved, asked.prior.days_before)
    calibration = _calibration(asked, saved, where)
    read = _read(asked.baseline)
    baseline = cut_baseline(read.ct, read.nodule, saved.roi, found=read.findings)
    _warn(baseline.findings)
    prior = _prior(asked.prior, read, saved)
    forget_earlier(asked.out)
    baseline_hu = to_hu(baseline.image, saved.roi)
    write_images(asked.out, "baseline", baseline.grid, hu=baseline_hu, mask=baseline.mask)
    if prior is not None:
        hu = to_hu(prior.scan.image, saved.roi)
        write_images(asked.out, "prior", baseline.grid, hu=hu, mask=prior.scan.mask)
    horizons = predict_follow_up(
        saved,
        baseline,
        asked.intervals,
        device=where,
        prior=prior.scan if prior else None,
        calibration=calibration,
    )
    written = tuple(_written(horizons, baseline, asked.out))
    figures = nodule_figures(baseline.volume_mm3, baseline_hu, baseline.mask)
    document = document_of(
        Predicted(asked.model, saved, baseline, figures, prior, calibration, written)
    )
    write_json_atomic(asked.out / FILE_NAME, document)
    return document


def _calibration(asked: _Asked, saved: SavedModel, where: torch.device) -> Calibration | None:
    """Calibrate the model on the site that is named; None where none is."""
    from nognet.commands.prepare import progress_to_stderr
    from nognet.config import load_site
    from nognet.data.site.prepare import prepared_or_prepare
    from nognet.fit.calibration import calibrate_model

    if asked.calibrate_on is None:
        return None
    site = load_site(asked.calibrate_on)
    with progress_to_stderr(f"prepare {site.name}") as progress:
        prepared = prepared_or_prepare(site, progress=progress)
    return calibrate_model(saved, site.name, prepared, asked.coverage, device=where)


def _prior(scan: _Scan | None, baseline: ReadNodule, saved: SavedModel) -> CutPrior | None:
    """Read a prior scan and lay it on the baseline's ROI."""
    from nognet.fit.prior import cut_prior

    if scan is None:
        return None
    prior = cut_prior(baseline, _read(scan), scan.days_before, saved.roi)
    _warn(prior.findings, "prior scan: ")
    return prior


def _read(scan: _Scan) -> ReadNodule:
    from nognet.fit.baseline import read_nodule

    return read_nodule(scan.image, scan.mask, segment=scan.segment)


def _written(
    horizons: Iterator[Horizon], baseline: Baseline, out: Path
) -> Iterator[tuple[Horizon, str]]:
    """Write each horizon's images as it comes; give it with its folder's name."""
    for horizon in horizons:
        folder = out / f"days_{horizon.interval_days:g}"
        write_images(folder, "follow_up", baseline.grid, hu=horizon.image_hu, mask=horizon.mask)
        write_field(folder, baseline.grid, horizon.displacement_lps_mm)
        _warn(horizon.findings, f"at {horizon.interval_days:g} days: ")
        yield horizon, folder.name


def _warn(findings: tuple[Finding, ...], where: str = "") -> None:
    for finding in findings:
        say(f"warning: {where}{finding.message}")
