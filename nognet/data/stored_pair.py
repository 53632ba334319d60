"""One prepared pair as a file: a plain `.npz` without pickle, which carries its own description.

It holds pseudonyms and intervals, never a name, an identifier or a date. Since a file says what it
was made from, an interrupted preparation finds what it had already made. A pair with a prior scan
carries two more arrays and one more number; a pair without is stored, to the byte, as if there were
no such thing.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nognet.config import RoiConfig
from nognet.errors import SiteDataError
from nognet.files import atomic_path
from nognet.types import PriorScan, RoiPair, Stratum

PAIRS_FOLDER = "pairs"
CACHE_WRITE = "cache-write"
"""Code of the error that the cache can't be written: the run ends, whatever it was doing."""
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile)
_ARRAYS: tuple[tuple[str, type[np.generic]], ...] = (
    ("baseline", np.float32),
    ("baseline_mask", np.uint8),
    ("follow_up", np.float32),
    ("follow_up_mask", np.uint8),
)
_PRIOR_ARRAYS: tuple[tuple[str, type[np.generic]], ...] = (
    ("prior", np.float32),
    ("prior_mask", np.uint8),
)


@dataclass(frozen=True)
class PairRecord:
    """What the index says of one pair.

    Attributes:
        pair_id: Pseudonym of the pair.
        patient_id: Pseudonym of the patient.
        interval_days: Days from baseline to follow-up.
        baseline_volume_mm3: On the native grid.
        follow_up_volume_mm3: On the native grid.
        stratum: Growth stratum by these volumes.
        file: Path of the pair's arrays, relative to the store.
        sha256: Digest of the pair's arrays and numbers.
        inputs: Keyed digest of all that the pair was made from; empty where it wasn't from files.
        quality: Figures by name (`ncc`, `nodule_displacement_mm`, `baseline_roi_volume_mm3` ...).
        warnings: Codes of what was warned of.
        prior_days_before: Days from the prior scan to the baseline; None without a prior scan.
    """

    pair_id: str
    patient_id: str
    interval_days: float
    baseline_volume_mm3: float
    follow_up_volume_mm3: float
    stratum: Stratum
    file: str
    sha256: str
    inputs: str = ""
    quality: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    prior_days_before: float | None = None

    def as_row(self) -> dict[str, Any]:
        """Give the record as JSON holds it: without `prior_days_before` where there is none."""
        row = asdict(self)
        if self.prior_days_before is None:
            del row["prior_days_before"]
        return row


def write_pair(
    folder: Path,
    pair: RoiPair,
    *,
    roi: RoiConfig,
    inputs: str = "",
    quality: Mapping[str, float] | None = None,
    warnings: tuple[str, ...] = (),
) -> PairRecord:
    """Write one pair in one step and return its record.

    Raises:
        SiteDataError: an array is not what it has to be, or the disk is full.
    """
    _check_pair(pair, roi)
    record = PairRecord(
        pair_id=pair.pair_id,
        patient_id=pair.patient_id,
        interval_days=pair.interval_days,
        baseline_volume_mm3=pair.baseline_volume_mm3,
        follow_up_volume_mm3=pair.follow_up_volume_mm3,
        stratum=pair.stratum,
        file=pair_file(pair.pair_id, inputs),
        sha256=_digest(pair),
        inputs=inputs,
        quality=dict(quality or {}),
        warnings=warnings,
        prior_days_before=float(pair.prior.days_before) if pair.prior else None,
    )
    about = np.frombuffer(json.dumps(record.as_row(), allow_nan=False).encode(), dtype=np.uint8)
    arrays = _arrays_of(pair)
    try:
        with atomic_path(folder / record.file) as temporary, temporary.open("wb") as file:
            np.savez(file, about=about, **arrays)
    except OSError as err:
        raise cannot_write(folder, err) from err
    return record


def pair_file(pair_id: str, inputs: str) -> str:
    """Name the file of a pair, relative to the store; other inputs give another file."""
    return f"{PAIRS_FOLDER}/{pair_id}{'-' + inputs[:16] if inputs else ''}.npz"


def find_pair(folder: Path, pair_id: str, inputs: str) -> PairRecord | None:
    """Find a pair that an earlier run made from exactly these inputs; None if there is none whole.

    A damaged file counts as none: it will be made anew.
    """
    path = folder / pair_file(pair_id, inputs)
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            record = record_from_row(json.loads(archive["about"].tobytes()))
        read_pair(folder, record)
    except (SiteDataError, TypeError, *_UNREADABLE):
        return None
    return record if (record.pair_id, record.inputs) == (pair_id, inputs) else None


def read_pair(folder: Path, record: PairRecord) -> RoiPair:
    """Read one pair and hold it against its digest.

    Raises:
        SiteDataError: the file is missing or damaged.
    """
    path = folder / record.file
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name, _ in _ARRAYS}
            prior = _prior_from(archive, record.prior_days_before)
    except _UNREADABLE as err:
        raise SiteDataError(
            f"{path}: the prepared pair can't be read ({type(err).__name__}); "
            "run `nognet prepare` again",
            code="cache-damaged",
        ) from err
    pair = RoiPair(
        pair_id=record.pair_id,
        patient_id=record.patient_id,
        interval_days=record.interval_days,
        baseline_volume_mm3=record.baseline_volume_mm3,
        follow_up_volume_mm3=record.follow_up_volume_mm3,
        prior=prior,
        **arrays,
    )
    if _digest(pair) != record.sha256:
        raise SiteDataError(
            f"{path}: the prepared pair doesn't match its digest in the index; "
            "delete the file and run `nognet prepare` again",
            code="cache-damaged",
        )
    return pair


def record_from_row(row: dict[str, Any]) -> PairRecord:
    """Read a record as JSON holds it (`PairRecord.as_row`)."""
    return PairRecord(**{**row, "warnings": tuple(row.get("warnings", ()))})


def _arrays_of(pair: RoiPair) -> dict[str, Any]:
    """Name the pair's arrays as its file does; those of the prior scan come last, if any."""
    arrays = {name: getattr(pair, name) for name, _ in _ARRAYS}
    if pair.prior is not None:
        arrays |= {"prior": pair.prior.image, "prior_mask": pair.prior.mask}
    return arrays


def _prior_from(archive: Mapping[str, NDArray[Any]], days_before: float | None) -> PriorScan | None:
    if days_before is None:
        return None
    return PriorScan(archive["prior"], archive["prior_mask"], days_before)


def _digest(pair: RoiPair) -> str:
    digest = hashlib.sha256()
    for name, values in _arrays_of(pair).items():
        array = np.ascontiguousarray(values)
        digest.update(f"{name}{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    numbers = [pair.interval_days, pair.baseline_volume_mm3, pair.follow_up_volume_mm3]
    if pair.prior is not None:
        numbers.append(pair.prior.days_before)
    digest.update(repr((pair.pair_id, pair.patient_id, *map(float, numbers))).encode())
    return digest.hexdigest()


def _check_pair(pair: RoiPair, roi: RoiConfig) -> None:
    shape = (roi.size_vox,) * 3
    arrays = _arrays_of(pair)
    for name, dtype in (*_ARRAYS, *(_PRIOR_ARRAYS if pair.prior else ())):
        array = arrays[name]
        if array.shape != shape or array.dtype != dtype:
            raise SiteDataError(
                f"pair {pair.pair_id}: {name} is {array.dtype} of shape {array.shape}, "
                f"expected {np.dtype(dtype)} of shape {shape}",
                code="roi-shape",
            )
    for name in ("baseline", "follow_up", *(("prior",) if pair.prior else ())):
        image = arrays[name]
        if not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1):
            raise SiteDataError(
                f"pair {pair.pair_id}: {name} has values outside [0, 1]", code="roi-range"
            )
    _check_numbers(pair)


def _check_numbers(pair: RoiPair) -> None:
    numbers = (pair.interval_days, pair.baseline_volume_mm3, pair.follow_up_volume_mm3)
    if not all(np.isfinite(number) and number > 0 for number in numbers):
        raise SiteDataError(
            f"pair {pair.pair_id}: interval and volumes must be above 0, found {numbers}",
            code="roi-numbers",
        )
    if pair.prior is None:
        return
    days_before = pair.prior.days_before
    if not (np.isfinite(days_before) and days_before > 0):
        raise SiteDataError(
            f"pair {pair.pair_id}: days from the prior scan to the baseline must be above 0, "
            f"found {days_before}",
            code="roi-numbers",
        )
    if pair.prior.mask.max() > 1:
        raise SiteDataError(
            f"pair {pair.pair_id}: prior_mask has values other than 0 and 1", code="roi-range"
        )


def cannot_write(folder: Path, err: OSError) -> SiteDataError:
    """Make the error that the cache can't be written."""
    return SiteDataError(
        f"{folder}: prepared pairs can't be written ({err.strerror}); nothing half-written was "
        "left; make room and run again, finished pairs are kept",
        code=CACHE_WRITE,
    )
