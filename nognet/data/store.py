"""The store of prepared pairs: a file a pair (`stored_pair`) and one `index.json`.

The index says which pairs count and in which split they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nognet.config import RoiConfig
from nognet.data.stored_pair import (
    PairRecord,
    cannot_write,
    read_pair,
    record_from_row,
    write_pair,
)
from nognet.errors import SiteDataError
from nognet.files import write_json_atomic
from nognet.types import SPLITS, STRATA, RoiPair, Split

SCHEMA_VERSION = 2
READABLE_VERSIONS = (1, 2)
"""Version 1 does not say what the pairs were made from."""
INDEX_NAME = "index.json"


@dataclass(frozen=True)
class StoreSource:
    """What an index was made from: keyed digest of the table, digest of the settings."""

    table: str
    settings: str


@dataclass(frozen=True)
class StoreIndex:
    """The whole index.

    Attributes:
        roi: The ROI that all pairs share.
        records: The pairs, by id.
        splits: The split of each patient.
        source: What it was made from; None where it wasn't from files, or an older version wrote
            it.
    """

    roi: RoiConfig
    records: tuple[PairRecord, ...]
    splits: Mapping[str, Split]
    source: StoreSource | None = None


@dataclass(frozen=True)
class PreparedSite:
    """A site's prepared pairs on disk."""

    folder: Path
    index: StoreIndex

    @property
    def roi(self) -> RoiConfig:
        """The ROI that all pairs share."""
        return self.index.roi

    def records(self, split: Split) -> tuple[PairRecord, ...]:
        """Records of one split, sorted by `pair_id`."""
        splits = self.index.splits
        return tuple(r for r in self.index.records if splits[r.patient_id] == split)

    def pairs(self, split: Split) -> list[RoiPair]:
        """Read the pairs of one split, sorted by `pair_id`.

        Raises:
            SiteDataError: a file is missing or damaged.
        """
        return [read_pair(self.folder, record) for record in self.records(split)]

    def counts(self) -> dict[Split, dict[str, Any]]:
        """Count ``{split: {"patients": n, "pairs": n, "strata": {stratum: pairs}}}``."""
        return {split: _count(self.records(split)) for split in SPLITS}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the contents: the ROI, every pair's digest, every patient's split."""
        content = {
            "roi": self.roi.model_dump(mode="json"),
            "pairs": [(r.pair_id, r.patient_id, r.sha256) for r in self.index.records],
            "splits": sorted(self.index.splits.items()),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_store(
    folder: Path,
    pairs: Sequence[RoiPair],
    splits: Mapping[str, Split],
    *,
    roi: RoiConfig,
    quality: Mapping[str, Mapping[str, float]] | None = None,
) -> PreparedSite:
    """Write pairs that exist as values, and their index.

    Args:
        folder: The store; made where it doesn't exist.
        pairs: Pairs with unique ids and ROIs of ``roi.size_vox`` voxels an edge.
        splits: Split of each patient, by `patient_id`.
        roi: The ROI that all pairs share.
        quality: Figures by `pair_id`, where there are any.

    Raises:
        SiteDataError: ids repeat, a patient has no split, an array is not what it has to be, or
            the disk is full.
    """
    figures = quality or {}
    records = [
        write_pair(folder, pair, roi=roi, quality=figures.get(pair.pair_id, {})) for pair in pairs
    ]
    return write_index(folder, records, splits, roi=roi)


def write_index(
    folder: Path,
    records: Sequence[PairRecord],
    splits: Mapping[str, Split],
    *,
    roi: RoiConfig,
    source: StoreSource | None = None,
) -> PreparedSite:
    """Write `index.json` in one step and return the store.

    Args:
        folder: The store.
        records: Pairs that are written already.
        splits: Split of each patient.
        roi: The ROI that all pairs share.
        source: What they were made from; None where that was no files.

    Raises:
        SiteDataError: ids repeat, a patient has no split, or the disk is full.
    """
    ids = [record.pair_id for record in records]
    if len(set(ids)) != len(ids):
        twice = sorted({i for i in ids if ids.count(i) > 1})
        raise SiteDataError(f"{folder}: pair ids repeat: {', '.join(twice[:5])}", code="pair-twice")
    without = sorted({r.patient_id for r in records} - set(splits))
    if without:
        raise SiteDataError(
            f"{folder}: {len(without)} patients have no split, the first is {without[0]}",
            code="no-split",
        )
    used = {r.patient_id: splits[r.patient_id] for r in records}
    index = StoreIndex(roi, tuple(sorted(records, key=lambda r: r.pair_id)), used, source)
    content = {
        "schema_version": SCHEMA_VERSION,
        "source": asdict(source) if source else None,
        "roi": roi.model_dump(mode="json"),
        "pairs": [{**r.as_row(), "split": used[r.patient_id]} for r in index.records],
    }
    try:
        write_json_atomic(folder / INDEX_NAME, content)
    except OSError as err:
        raise cannot_write(folder, err) from err
    return PreparedSite(folder, index)


def open_store(folder: Path) -> PreparedSite:
    """Open what `nognet prepare` (or the ROI-level phantom) has written.

    Raises:
        SiteDataError: there is no index, or it is damaged or of another version.
    """
    path = folder / INDEX_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise SiteDataError(
            f"{path}: no such file; run `nognet prepare --site site.yaml` first",
            code="not-prepared",
        ) from err
    except (OSError, ValueError) as err:
        raise _damaged_index(path, type(err).__name__) from err
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version not in READABLE_VERSIONS:
        raise _damaged_index(path, f"schema_version {version!r}, expected {SCHEMA_VERSION}")
    try:
        splits: dict[str, Split] = {}
        for row in content["pairs"]:
            split = row.pop("split")
            if split not in SPLITS or splits.setdefault(row["patient_id"], split) != split:
                raise _damaged_index(path, f"patient {row['patient_id']} is in two splits or none")
        records = tuple(record_from_row(row) for row in content["pairs"])
        roi = RoiConfig.model_validate(content["roi"])
        source = StoreSource(**content["source"]) if content.get("source") else None
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise _damaged_index(path, type(err).__name__) from err
    return PreparedSite(folder, StoreIndex(roi, records, splits, source))


def _count(records: Sequence[PairRecord]) -> dict[str, Any]:
    strata = {name: sum(r.stratum == name for r in records) for name in STRATA}
    patients = len({r.patient_id for r in records})
    return {"patients": patients, "pairs": len(records), "strata": strata}


def _damaged_index(path: Path, found: str) -> SiteDataError:
    return SiteDataError(
        f"{path}: the index of prepared pairs is not usable ({found}); delete the cache folder "
        "and run `nognet prepare` again",
        code="cache-damaged",
    )
