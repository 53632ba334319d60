"""The pairs of a contest: trained on by every network, and tested on patients none has seen."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nognet.config import RoiConfig
from nognet.data.store import open_store
from nognet.errors import SiteDataError
from nognet.phantom.roi import make_roi_pairs
from nognet.types import STRATA, RoiPair

PHANTOM_SITES = 3


@dataclass(frozen=True)
class Cohort:
    """Pairs to train on and to test on; no patient is in both.

    Attributes:
        source: Where they come from, in words.
        train: For every network, and for the isotropic baseline's rate.
        test: Of other patients.
    """

    source: str
    train: tuple[RoiPair, ...]
    test: tuple[RoiPair, ...]

    def described(self) -> dict[str, Any]:
        """Describe it for the record: counts of pairs, patients, strata, digest of the ids."""
        return {
            "source": self.source,
            "roi_size_vox": int(self.test[0].baseline.shape[0]),
            "train": _counts(self.train),
            "test": _counts(self.test),
        }


def phantom_cohort(
    patients: int,
    test_patients: int,
    *,
    seed: int,
    roi: RoiConfig | None = None,
    background: Path | None = None,
) -> Cohort:
    """Draw phantom patients of three hospitals, dealt in turn, pooled.

    Args:
        patients: To train on, all hospitals together.
        test_patients: To test on, all hospitals together.
        seed: Of the cohort alone.
        roi: By default 48 voxels.
        background: A real CT to grow the nodules in, instead of drawn chests. Nodules of training
            and test patients lie in other places of the same CT.

    Raises:
        SiteDataError: the background can't be used.
    """
    train: list[RoiPair] = []
    test: list[RoiPair] = []
    for site in range(PHANTOM_SITES):
        ours, others = _share(patients, site), _share(test_patients, site)
        everything = make_roi_pairs(
            ours + others, seed=seed, site=site, roi=roi, background=background
        )
        ids = list(dict.fromkeys(pair.patient_id for pair in everything))
        learnt = set(ids[:ours])
        train += [pair for pair in everything if pair.patient_id in learnt]
        test += [pair for pair in everything if pair.patient_id not in learnt]
    where = "" if background is None else f", grown in {background.name}"
    source = f"phantom{where}, {PHANTOM_SITES} hospitals pooled, cohort seed {seed}"
    return _checked(Cohort(source, tuple(train), tuple(test)))


def stored_cohort(folder: Path) -> Cohort:
    """Read the training and the test split of a prepared store.

    Raises:
        SiteDataError: it can't be read, or a split is empty.
    """
    store = open_store(folder)
    source = f"prepared pairs, fingerprint {store.fingerprint[:16]}"
    return _checked(Cohort(source, tuple(store.pairs("train")), tuple(store.pairs("test"))))


def _share(patients: int, site: int) -> int:
    return (patients + PHANTOM_SITES - 1 - site) // PHANTOM_SITES


def _checked(cohort: Cohort) -> Cohort:
    for name, pairs in (("training", cohort.train), ("test", cohort.test)):
        if not pairs:
            raise SiteDataError(
                f"{cohort.source}: no {name} pairs; expected at least one; give more patients, or "
                "see `nognet check` for why pairs were refused",
                code="no-pairs",
            )
    return cohort


def _counts(pairs: Sequence[RoiPair]) -> dict[str, Any]:
    strata = Counter(pair.stratum for pair in pairs)
    ids = "\n".join(pair.pair_id for pair in pairs)
    return {
        "pairs": len(pairs),
        "patients": len({pair.patient_id for pair in pairs}),
        "strata": {stratum: strata[stratum] for stratum in STRATA},
        "pair_ids_sha256": hashlib.sha256(ids.encode()).hexdigest(),
    }
