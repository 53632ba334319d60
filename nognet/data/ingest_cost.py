"""What ingestion costs: reading a series against SimpleITK's own reader, and pairs a minute.

Both readers take turns on the same files in one process, so that whatever else the machine does
falls on both: trust the ratio before the seconds. What is compared does not do the same work: ours
checks every header and every slice's place; the other one trusts the files.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nognet.config import SiteConfig
from nognet.data.ct.image import LOWEST_HU, CtReading, read_ct_with_findings
from nognet.data.ct.series import choose_series
from nognet.data.site.prepare import prepare_site_with_report
from nognet.errors import SiteDataError

PHASES = ("digests", "reading", "masks", "registration", "cutting", "writing")


@dataclass(frozen=True)
class ReadingCost:
    """What reading a series costs; seconds are medians, ratios are of one turn each.

    Attributes:
        slices: Of the series.
        matrix: Rows and columns.
        transfer_syntax: UID of the first slice's.
        repeats: Turns of both readers, after one to warm up.
        seconds: Our reader: headers, checks, decoding, HU, verification.
        headers_s: Of these the headers and their checks, measured on their own.
        bare_seconds: SimpleITK's `GetGDCMSeriesFileNames` and `ImageSeriesReader`.
        ratio: Median over the turns of ours over bare.
        ratio_range: Smallest and largest of these.
        differing_voxels: Where the two volumes differ, both cut off at -1024 HU; to be 0.
    """

    slices: int
    matrix: tuple[int, int]
    transfer_syntax: str
    repeats: int
    seconds: float
    headers_s: float
    bare_seconds: float
    ratio: float
    ratio_range: tuple[float, float]
    differing_voxels: int

    @property
    def slices_per_s(self) -> float:
        """Slices a second of our reader."""
        return self.slices / self.seconds

    @property
    def bare_slices_per_s(self) -> float:
        """Slices a second of SimpleITK's."""
        return self.slices / self.bare_seconds


@dataclass(frozen=True)
class PreparationCost:
    """What preparing a site costs, from the files to the stored pairs.

    Attributes:
        pairs: Pairs stored.
        refused: Pairs refused, which cost time too.
        workers: Processes side by side.
        wall_s: From start to end.
        phase_s: Seconds by phase, summed over the workers.
    """

    pairs: int
    refused: int
    workers: int
    wall_s: float
    phase_s: dict[str, float]

    @property
    def pairs_per_minute(self) -> float:
        """Pairs stored a minute of wall time."""
        return 60 * self.pairs / self.wall_s

    @property
    def shares(self) -> dict[str, float]:
        """Part of the phases' seconds that each took, the named ones first."""
        total = sum(self.phase_s.values()) or 1.0
        names = [*PHASES, *sorted(set(self.phase_s) - set(PHASES))]
        return {name: self.phase_s.get(name, 0.0) / total for name in names}


def measure_reading(
    path: Path, *, repeats: int = 7, progress: Callable[[int], None] | None = None
) -> ReadingCost:
    """Measure our reader and SimpleITK's in turns on one series.

    Args:
        path: A DICOM series, or a folder in which our reader finds one.
        repeats: Turns; in every other one the bare reader goes first.
        progress: Told the turns done.

    Raises:
        SiteDataError: there is no series that both can read.
    """
    reading = read_ct_with_findings(path)  # warms up: the files are in memory from here on
    folder = _folder_of(reading, path)
    bare_image = _bare(folder, reading.series_uid)
    differing = _differing(reading, bare_image)
    turns: list[tuple[float, float]] = []
    headers: list[float] = []
    for turn in range(repeats):
        works = [
            lambda: read_ct_with_findings(folder, reading.series_uid),
            lambda: _bare(folder, reading.series_uid),
        ]
        order = (0, 1) if turn % 2 == 0 else (1, 0)
        took = {which: _seconds(works[which]) for which in order}
        turns.append((took[0], took[1]))
        headers.append(_seconds(lambda: choose_series(folder, reading.series_uid)))
        if progress:
            progress(turn + 1)
    ratios = sorted(ours / bare for ours, bare in turns)
    depth, rows, columns = reading.volume.array.shape
    return ReadingCost(
        slices=depth,
        matrix=(rows, columns),
        transfer_syntax=_syntax(reading.files[0]),
        repeats=repeats,
        seconds=statistics.median(ours for ours, _ in turns),
        headers_s=statistics.median(headers),
        bare_seconds=statistics.median(bare for _, bare in turns),
        ratio=statistics.median(ratios),
        ratio_range=(ratios[0], ratios[-1]),
        differing_voxels=differing,
    )


def measure_preparation(
    site: SiteConfig, *, progress: Callable[[int, int, str], None] | None = None
) -> PreparationCost:
    """Prepare a site whose cache is empty and say where the time went.

    Raises:
        SiteDataError: its cache holds pairs already, or it can't be prepared.
    """
    if any(site.cache.glob("*.json")):
        raise SiteDataError(
            f"{site.cache}: holds prepared pairs; what is reused costs nothing to measure",
            code="cache-used",
        )
    started = time.perf_counter()
    _, examination = prepare_site_with_report(site, progress=progress)
    wall_s = time.perf_counter() - started
    outcomes = examination.outcomes
    phases = {name: spent for name, spent in examination.seconds.items() if name != "wall"}
    return PreparationCost(
        pairs=len(examination.records),
        refused=sum(outcome.status == "refused" for outcome in outcomes),
        workers=_workers(site, len({outcome.patient for outcome in outcomes})),
        wall_s=wall_s,
        phase_s=phases,
    )


def _workers(site: SiteConfig, patients: int) -> int:
    import os

    return min(site.preparation.workers or len(os.sched_getaffinity(0)), patients)


def _folder_of(reading: CtReading, path: Path) -> Path:
    """Find the one folder of a series: SimpleITK's list of a series knows no more than one."""
    folders = {file.parent for file in reading.files}
    if len(folders) != 1 or not reading.series_uid or len(set(reading.files)) < 2:
        raise SiteDataError(
            f"{path}: for this comparison a DICOM series of one file a slice has to lie in one "
            f"folder and have a UID; found {len(set(reading.files))} files in {len(folders)} "
            "folders",
            code="no-series",
        )
    return folders.pop()


def _bare(folder: Path, series_uid: str) -> sitk.Image:
    """Read a series as the manual of SimpleITK shows it."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), series_uid))
    image: sitk.Image = reader.Execute()
    return image


def _differing(reading: CtReading, image: sitk.Image) -> int:
    """Count the voxels in which both readers disagree."""
    bare = sitk.GetArrayViewFromImage(image)
    if bare.shape != reading.volume.array.shape:
        return int(reading.volume.array.size)
    return int(np.count_nonzero(np.maximum(bare, LOWEST_HU) != reading.volume.array))


def _syntax(path: Path) -> str:
    from pydicom import dcmread

    return str(dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
