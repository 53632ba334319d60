"""What of a split's figures may leave a site, by how many patients are behind them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nognet.audit.log import egress_folder
from nognet.config import StudyConfig
from nognet.data.store import PreparedSite
from nognet.errors import EgressError
from nognet.fit.evaluate import ISOTROPIC, PERSONALISED
from nognet.metrics.withholding import Limits
from nognet.privacy.policy import stricter
from nognet.types import Split
from nognet_client.egress.cohorts import admit_behind, admit_cohort
from nognet_client.egress.counts import counted, n_patients
from nognet_client.egress.room import with_room
from nognet_client.site import Site

_OF_TRAINING = frozenset({ISOTROPIC, PERSONALISED})
"""Predictors that are made of the training patients at the site."""


def limits_of(site: Site, study: StudyConfig, split: Split) -> Limits:
    """Say what of a split's figures may leave, and remember its patients.

    Under privacy those of the site's own model don't: it is trained without noise, so that they
    would tell of training patients what no epsilon covers. Where few training or validation
    patients changed, what depends on those doesn't: isotropic growth and the site's own model, and
    intervals.

    Raises:
        EgressError: nothing may: the split has too few patients, or too few of them changed since
            figures were given; or nothing can be remembered.
    """
    config, prepared = site.config, site.prepared
    needed = config.egress.min_patients
    private = stricter(study.privacy, config.privacy) is not None
    without = frozenset({PERSONALISED} if private else ())
    if needed <= 1:
        return Limits(needed, without=without)
    few = [name for name in (split, "train") if n_patients(prepared, name) < needed]
    if few:
        raise EgressError(
            f"site {config.name}: fewer than {needed} {few[0]} patients (egress.min_patients), so "
            f"no figures of {split} patients leave",
            code="withheld",
        )
    folder = egress_folder(config.state)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = with_room(folder, lambda: _remembered(folder, prepared, split, needed))
    except OSError as err:
        raise EgressError(
            f"{folder}: can't be written ({err.strerror}), so it would not be known of whom "
            "figures were given, and none leave; free some space",
            code="not-recorded",
        ) from err
    return replace(found, without=found.without | without)


def _remembered(folder: Path, prepared: PreparedSite, split: Split, needed: int) -> Limits:
    """Hold the patients of a split, and those behind its figures, against those of before."""
    records = prepared.records(split)
    strata = admit_cohort(folder, split, records, needed)
    same_growth = admit_behind(folder, "train", prepared.records("train"), needed)
    intervals = n_patients(prepared, "validation") >= needed
    if split == "test" and intervals:  # of no other split are there any
        intervals = admit_behind(folder, "validation", prepared.records("validation"), needed)
    return Limits(
        needed,
        strata=strata,
        intervals=intervals,
        counts=counted(records),
        without=frozenset() if same_growth else _OF_TRAINING,
    )
