"""On whose patients figures were given before: two that differ by few patients tell of those few.

A coordinator that sends the same weights before and after a hospital has prepared one patient more
has, by subtraction, that patient's own figures. So a site remembers the patients of each split that
figures were given of, as digests of their pairs, in its state folder. It also remembers those that
stand behind figures of others: the training patients, whose median growth the isotropic baseline
has, and the validation patients, by whom intervals are calibrated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from nognet.data.stored_pair import PairRecord
from nognet.errors import EgressError
from nognet.files import held, write_text_atomic
from nognet.types import STRATA, Split

Behind = Literal["train", "validation"]

Cohort = Mapping[str, str]
"""Patient's digest -> the strata of its pairs; another pair, or another mask, is another digest."""
_KEPT = 64


def admit_cohort(
    folder: Path, split: Split, records: Sequence[PairRecord], min_patients: int
) -> bool:
    """Remember the patients of a split; say whether figures by stratum may be given of them too.

    Args:
        folder: Where the memory is kept.
        split: Of the site's patients.
        records: Its pairs.
        min_patients: As few patients as may stand behind a number; 1 remembers nothing.

    Raises:
        EgressError: figures were given of patients that differ by fewer than `min_patients`, or
            the memory can't be read.
        OSError: the memory can't be written.
    """
    if min_patients <= 1:
        return True
    verdicts = _remembered(folder, split, records, min_patients)
    if "all" in verdicts:
        raise EgressError(
            f"the {split} patients are not quite those of whom figures were given before: "
            f"fewer than {min_patients} of them changed, and the two together would tell of "
            f"those few. Figures leave again once {min_patients} have changed",
            code="withheld",
        )
    return not any(verdicts)


def admit_behind(
    folder: Path, behind: Behind, records: Sequence[PairRecord], min_patients: int
) -> bool:
    """Remember the patients behind figures of others; say whether such figures may be given.

    One memory for all splits that are evaluated: each of them alone tells the median growth.

    Args:
        folder: Where the memory is kept.
        behind: The split that is not evaluated, but shapes what is.
        records: Its pairs.
        min_patients: As `admit_cohort`.

    Raises:
        EgressError: the memory can't be read.
        OSError: it can't be written.
    """
    if min_patients <= 1:
        return True
    return "all" not in _remembered(folder, f"behind|{behind}", records, min_patients)


def _remembered(
    folder: Path, key: str, records: Sequence[PairRecord], min_patients: int
) -> list[str]:
    """Hold patients against those remembered; add them, unless so few changed that none leave."""
    now, path = cohort_of(records), folder / "cohorts.json"
    with held(folder / ".cohorts.lock"):
        known = _read(path)
        before = known.get(key, [])
        verdicts = [_difference(then, now, min_patients) for then in before]
        if "all" not in verdicts and now not in before:
            known[key] = [*before, dict(now)][-_KEPT:]
            write_text_atomic(path, json.dumps(known) + "\n", mode=0o600)
    return verdicts


def cohort_of(records: Sequence[PairRecord]) -> dict[str, str]:
    """Digest each patient's pairs, and name their strata."""
    of_patient: dict[str, list[PairRecord]] = {}
    for record in records:
        of_patient.setdefault(record.patient_id, []).append(record)
    cohort = {}
    for patient, pairs in of_patient.items():
        contents = [patient, *sorted(f"{pair.pair_id} {pair.sha256}" for pair in pairs)]
        digest = hashlib.sha256("\n".join(contents).encode()).hexdigest()[:32]
        cohort[digest] = " ".join(sorted({pair.stratum for pair in pairs}))
    return dict(sorted(cohort.items()))


def _difference(then: Cohort, now: Cohort, min_patients: int) -> str:
    """Name which figures would tell of too few: ``all``, ``strata`` or none."""
    gone = [strata for digest, strata in then.items() if digest not in now]
    new = [strata for digest, strata in now.items() if digest not in then]
    if not gone and not new:
        return ""
    # a patient with another pair is in both lists, so the longer one counts the fewest patients
    if max(len(gone), len(new)) < min_patients:
        return "all"
    in_strata = (
        max(sum(name in s.split() for s in side) for side in (gone, new)) for name in STRATA
    )
    return "strata" if any(0 < count < min_patients for count in in_strata) else ""


def _read(path: Path) -> dict[str, list[dict[str, str]]]:
    try:
        found: dict[str, list[dict[str, str]]] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as err:
        raise EgressError(
            f"{path}: can't be read ({type(err).__name__}), so it isn't known of whom figures were "
            "given; restore it, or give the site another 'state' folder",
            code="not-recorded",
        ) from err
    return found
