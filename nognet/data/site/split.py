"""Split patients into training, validation and test: never pairs, so that no patient leaks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from nognet.config import SplitConfig
from nognet.randomness import derived_seed
from nognet.types import SPLITS, STRATA, Split, Stratum

NOBODY: Mapping[str, Split] = MappingProxyType({})


def patient_stratum(strata: Iterable[Stratum]) -> Stratum:
    """Give the stratum a patient is split by: growing before shrinking before stable.

    >>> patient_stratum(["stable", "growing", "shrinking"]), patient_stratum(["stable"])
    ('growing', 'stable')
    """
    found = set(strata)
    return "growing" if "growing" in found else "shrinking" if "shrinking" in found else "stable"


def quotas(n_patients: int, split: SplitConfig) -> dict[Split, int]:
    """Share out patients: each split gets at least one as soon as there are three.

    >>> quotas(24, SplitConfig(validation=0.17, test=0.33))
    {'train': 12, 'validation': 4, 'test': 8}
    """
    least = 1 if n_patients >= len(SPLITS) else 0
    test = max(least, round(n_patients * split.test))
    validation = max(least, round(n_patients * split.validation))
    while test + validation > max(n_patients - 1, 0):  # somebody has to be left to train on
        if test >= validation:
            test -= 1
        else:
            validation -= 1
    return {"train": n_patients - test - validation, "validation": validation, "test": test}


def assign_splits(
    strata: Mapping[str, Stratum],
    split: SplitConfig,
    *,
    seed: int,
    before: Mapping[str, Split] = NOBODY,
) -> dict[str, Split]:
    """Assign every patient to a split.

    Patients are taken stratum by stratum in an order drawn from the seed, and each goes to the
    split that is furthest behind its share, so that every stratum is spread over the splits as
    evenly as whole numbers allow. Who was assigned before stays where they are.

    Args:
        strata: Stratum of each patient, by pseudonym.
        split: Shares.
        seed: The site's seed.
        before: Splits of an earlier preparation; patients that are gone are ignored.

    Returns:
        Split of each patient, by pseudonym.
    """
    assigned: dict[str, Split] = {p: before[p] for p in strata if p in before}
    target = quotas(len(strata), split)
    counts = {name: sum(s == name for s in assigned.values()) for name in SPLITS}
    order = sorted(
        (patient for patient in strata if patient not in assigned),
        key=lambda p: (STRATA.index(strata[p]), derived_seed(seed, "split", p), p),
    )
    room = {name: max(target[name] - counts[name], 0) for name in SPLITS}
    total, taken = sum(room.values()), dict.fromkeys(SPLITS, 0)
    for i, patient in enumerate(order):
        open_splits = [name for name in SPLITS if taken[name] < room[name]]
        if not open_splits:  # earlier splits overfill their shares: the rest trains
            assigned[patient] = "train"
            continue
        behind = {name: room[name] * (i + 1) / total - taken[name] for name in open_splits}
        chosen = max(open_splits, key=lambda name: behind[name])
        taken[chosen] += 1
        assigned[patient] = chosen
    return assigned
