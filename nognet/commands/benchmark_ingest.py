"""`nognet benchmark ingest`: what reading and preparing studies costs on this machine."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nognet.console import emit, say

if TYPE_CHECKING:
    from nognet.data.ingest_cost import PreparationCost, ReadingCost

WANTED_RATIO = 1.3
SEED = 11
COMPRESSED_PART = 5
"""One in so many slices is compressed too: noise takes JPEG 2000 a tenth of a second a slice."""


def ingest(
    folder: Annotated[
        Path | None,
        typer.Argument(help="A DICOM series of your own; by default phantom series are written."),
    ] = None,
    slices: Annotated[
        int, typer.Option(min=2, max=2000, help="Slices of the phantom series, 512 x 512.")
    ] = 200,
    repeats: Annotated[int, typer.Option(min=1, max=100, help="Turns of each reader.")] = 7,
    patients: Annotated[
        int, typer.Option(min=0, max=100, help="Phantom patients to prepare; 0 leaves that out.")
    ] = 4,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that prepare; by default one a core.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure our reader against SimpleITK's in turns, and pairs a minute of `nognet prepare`.

    Both readers take the same files from memory (they were read once before), ours with all its
    checks. Pairs are prepared from a small phantom cohort, and it is told where the time goes.
    """
    from nognet.data.ingest_cost import measure_reading

    with tempfile.TemporaryDirectory(prefix="nognet-benchmark-") as temporary:
        place = Path(temporary)
        series = _phantom_series(place, slices) if folder is None else {"given": folder}
        reading = {}
        for name, path in series.items():
            say(f"reading the {name} series, {repeats} turns ...")
            reading[name] = measure_reading(path, repeats=repeats)
        preparation = _preparation(place / "cohort", patients, workers) if patients else None
    if as_json:
        emit(json.dumps(_as_json(reading, preparation), indent=2, allow_nan=False))
        return
    for line in _lines(reading, preparation):
        emit(line)


def _phantom_series(place: Path, slices: int) -> dict[str, Path]:
    """Write a series uncompressed, and the first part of it once more in lossless JPEG 2000."""
    from nognet.phantom.bench_series import compress_series, write_bench_series

    say(f"writing a phantom series of {slices} slices ...")
    plain, compressed = place / "plain", place / "jpeg2000"
    files = write_bench_series(plain, slices=slices, seed=SEED)
    compress_series(files[: max(2, slices // COMPRESSED_PART)], compressed)
    return {"uncompressed": plain, "JPEG 2000": compressed}


def _preparation(place: Path, patients: int, workers: int | None) -> PreparationCost:
    from nognet.commands.prepare import progress_to_stderr
    from nognet.config import load_site
    from nognet.data.ingest_cost import measure_preparation
    from nognet.phantom.cohort import write_cohort

    say(f"writing a phantom cohort of {patients} patients ...")
    write_cohort(place, sites=1, patients=patients, seed=SEED, workers=workers)
    site = load_site(place / "hospital_a" / "site.yaml")
    limits = site.preparation.model_copy(update={"workers": workers})
    with progress_to_stderr("prepare") as progress:
        return measure_preparation(
            site.model_copy(update={"preparation": limits}), progress=progress
        )


def _as_json(
    reading: dict[str, ReadingCost], preparation: PreparationCost | None
) -> dict[str, Any]:
    return {
        "reading": {
            name: {
                **asdict(cost),
                "slices_per_s": cost.slices_per_s,
                "bare_slices_per_s": cost.bare_slices_per_s,
            }
            for name, cost in reading.items()
        },
        "preparation": None
        if preparation is None
        else {
            **asdict(preparation),
            "pairs_per_minute": preparation.pairs_per_minute,
            "shares": preparation.shares,
        },
        "wanted_ratio": WANTED_RATIO,
        **_machine(),
    }


def _machine() -> dict[str, Any]:
    import os

    import numpy as np
    import pydicom
    import SimpleITK as sitk

    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    return {
        "cores": os.cpu_count(),
        "load_average": load,
        "SimpleITK": sitk.Version_VersionString(),
        "pydicom": pydicom.__version__,
        "numpy": np.__version__,
    }


def _lines(reading: dict[str, ReadingCost], preparation: PreparationCost | None) -> Iterator[str]:
    machine = _machine()
    versions = ", ".join(f"{name} {machine[name]}" for name in ("SimpleITK", "pydicom", "numpy"))
    yield f"{machine['cores']} cores, load average {machine['load_average']}, {versions}"
    for name, cost in reading.items():
        low, high = cost.ratio_range
        rows, columns = cost.matrix
        yield f"{name}: {cost.slices} slices of {rows} x {columns}, {cost.repeats} turns"
        yield f"  ours               {cost.slices_per_s:.0f} slices/s"
        yield f"  SimpleITK          {cost.bare_slices_per_s:.0f} slices/s"
        verdict = "within" if cost.ratio <= WANTED_RATIO else "above"
        yield (
            f"  ratio              {cost.ratio:.2f} (from {low:.2f} to {high:.2f}), {verdict} the "
            f"{WANTED_RATIO} wanted"
        )
        yield f"  headers, checks    {100 * cost.headers_s / cost.seconds:.0f} % of our time"
        yield f"  differing voxels   {cost.differing_voxels}"
    if preparation is not None:
        yield from _preparation_lines(preparation)


def _preparation_lines(cost: PreparationCost) -> Iterator[str]:
    yield (
        f"prepare: {cost.pairs} pairs in {cost.wall_s:.1f} s with {cost.workers} workers: "
        f"{cost.pairs_per_minute:.1f} pairs/minute"
    )
    for name, share in cost.shares.items():
        yield f"  {name:18} {100 * share:5.1f} %  {cost.phase_s.get(name, 0.0):7.2f} s"
