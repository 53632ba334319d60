"""How many patients and pairs a site says that it has: nothing with too few patients behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from nognet.config import StudyConfig
from nognet.config.consent import LOSS
from nognet.data.store import PreparedSite
from nognet.data.stored_pair import PairRecord
from nognet.errors import EgressError
from nognet.metrics.moments import Moments, StratifiedMoments
from nognet.metrics.withholding import withheld_strata
from nognet.types import SPLITS, STRATA, Split
from nognet.wire.fields import Counts
from nognet_client.site import Site


def released_counts(prepared: PreparedSite, min_patients: int) -> Counts:
    """Count as `PreparedSite.counts` does, with None for what is withheld.

    A split with too few patients is withheld altogether, of another one the strata that
    `withheld_strata` names. 1 withholds nothing.
    """
    return {split: _of_split(prepared.records(split), min_patients) for split in SPLITS}


def n_patients(prepared: PreparedSite, split: Split) -> int:
    """Count the patients of a split."""
    return len({record.patient_id for record in prepared.records(split)})


def counted(records: Sequence[PairRecord]) -> StratifiedMoments:
    """Count pairs and patients, of all and by stratum, as a metric of all pairs counts them."""

    def moments(part: Sequence[PairRecord]) -> Moments:
        return Moments(len(part), _patients(part))

    of_strata = {name: moments([r for r in records if r.stratum == name]) for name in STRATA}
    return StratifiedMoments(moments(records), of_strata)


def check_training_patients(site: Site) -> None:
    """Refuse to train on fewer patients than may stand behind a number.

    Raises:
        EgressError: they are fewer.
    """
    found, needed = n_patients(site.prepared, "train"), site.config.egress.min_patients
    if found < needed and needed > 1:
        raise EgressError(
            f"site {site.config.name}: {found} training patients, expected at least {needed} "
            "(egress.min_patients); an update of fewer would tell too much of each",
            code="too-few-patients",
        )


def lets_out_loss(site: Site, study: StudyConfig) -> bool:
    """Tell whether the mean loss of a round's training may leave.

    It may where the consent lets it, and `egress.min_patients` are behind it whatever the round
    draws: a study of one step of one sample would ask for the loss of a single patient.
    """
    config, training = site.config, study.training
    if config.consent is not None and not config.consent.lets_out(LOSS):
        return False
    drawn = training.steps_per_round * training.batch_size * training.accumulate
    return fewest_patients(site.prepared.records("train"), drawn) >= config.egress.min_patients


def fewest_patients(records: Sequence[PairRecord], drawn: int) -> int:
    """Count the fewest patients that so many pairs can be of, drawn without putting back."""
    pairs_of = Counter(record.patient_id for record in records)
    before = list(accumulate(sorted(pairs_of.values(), reverse=True), initial=0))[:-1]
    return sum(pairs < drawn for pairs in before)


def _of_split(records: Sequence[PairRecord], min_patients: int) -> dict[str, Any]:
    by_stratum = {name: [r for r in records if r.stratum == name] for name in STRATA}
    patients = _patients(records)
    if min_patients > 1 and patients < min_patients:
        return {"patients": None, "pairs": None, "strata": dict.fromkeys(STRATA)}
    of_strata: dict[Any, int | None] = {n: _patients(part) for n, part in by_stratum.items()}
    hidden = withheld_strata(patients, of_strata, min_patients) if min_patients > 1 else frozenset()
    return {
        "patients": patients,
        "pairs": len(records),
        "strata": {n: None if n in hidden else len(part) for n, part in by_stratum.items()},
    }


def _patients(records: Sequence[PairRecord]) -> int:
    return len({record.patient_id for record in records})
