"""Phantom hospitals of the benchmark, written as prepared pairs; one of them can be mislabelled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from nognet.config import RoiConfig, SplitConfig
from nognet.data.site.split import assign_splits, patient_stratum
from nognet.data.store import write_store
from nognet.files import write_text_atomic
from nognet.phantom.roi import make_roi_pairs
from nognet.phantom.scanner import site_name
from nognet.types import RoiPair, Split, Stratum
from nognet_server.robustness.attacks import wrongly_labelled

ROI = RoiConfig(size_vox=32)


def write_hospitals(folder: Path, *, sites: int, patients: int, seed: int) -> list[Path]:
    """Write hospitals, and beside the last one its double with wrong training labels.

    Args:
        folder: Where to.
        sites: Number of hospitals.
        patients: Of each.
        seed: Of everything drawn.

    Returns:
        The `site.yaml` of each hospital, then that of the double, which has the last one's name.
    """
    paths: list[Path] = []
    pairs: list[RoiPair] = []
    splits: dict[str, Split] = {}
    for site in range(sites):
        pairs = make_roi_pairs(patients, seed=seed, site=site, roi=ROI)
        splits = _splits(pairs, seed)
        paths.append(_written(folder / site_name(site), site_name(site), pairs, splits, seed))
    train = wrongly_labelled([pair for pair in pairs if splits[pair.patient_id] == "train"])
    others = [pair for pair in pairs if splits[pair.patient_id] != "train"]
    name = site_name(sites - 1)
    double = _written(folder / "wrong-labels" / name, name, [*train, *others], splits, seed)
    return [*paths, double]


def _splits(pairs: Sequence[RoiPair], seed: int) -> dict[str, Split]:
    of_patient: dict[str, list[Stratum]] = {}
    for pair in pairs:
        of_patient.setdefault(pair.patient_id, []).append(pair.stratum)
    strata = {patient: patient_stratum(found) for patient, found in of_patient.items()}
    return assign_splits(strata, SplitConfig(), seed=seed)


def _written(
    home: Path, name: str, pairs: Sequence[RoiPair], splits: dict[str, Split], seed: int
) -> Path:
    write_store(home / "cache", pairs, splits, roi=ROI)
    values = {
        "name": name,
        "studies": "studies.csv",
        "seed": seed,
        "device": "cpu",
        "threads": 1,
        "roi": {"size_vox": ROI.size_vox},
        "egress": {"min_patients": 1},  # phantoms: no patient is behind the small splits
    }
    path = home / "site.yaml"
    write_text_atomic(path, yaml.safe_dump(values, sort_keys=False))
    return path
