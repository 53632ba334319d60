"""What of a split's figures may leave a site, by how many patients are behind them."""

from __future__ import annotations

from nognet.audit.log import egress_folder
from nognet.config import StudyConfig
from nognet.errors import EgressError
from nognet.fit.evaluate import PERSONALISED
from nognet.metrics.withholding import Limits
from nognet.privacy.policy import stricter
from nognet.types import Split
from nognet_client.egress.cohorts import admit_cohort
from nognet_client.egress.counts import counted, n_patients
from nognet_client.egress.room import with_room
from nognet_client.site import Site


def limits_of(site: Site, study: StudyConfig, split: Split) -> Limits:
    """Say what of a split's figures may leave, and remember its patients.

    Under privacy those of the site's own model don't: it is trained without noise, so that they
    would tell of training patients what no epsilon covers.

    Raises:
        EgressError: nothing may: the split has too few patients, or too few of them changed since
            figures were given; or nothing can be remembered.
    """
    config, prepared = site.config, site.prepared
    needed = config.egress.min_patients
    private = stricter(study.privacy, config.privacy) is not None
    without = frozenset({PERSONALISED}) if private else frozenset()
    if needed <= 1:
        return Limits(needed, without=without)
    few = [name for name in (split, "train") if n_patients(prepared, name) < needed]
    if few:
        raise EgressError(
            f"site {config.name}: fewer than {needed} {few[0]} patients (egress.min_patients), so "
            f"no figures of {split} patients leave",
            code="withheld",
        )
    folder, records = egress_folder(config.state), prepared.records(split)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        strata = with_room(folder, lambda: admit_cohort(folder, split, records, needed))
    except OSError as err:
        raise EgressError(
            f"{folder}: can't be written ({err.strerror}), so it would not be known of whom "
            "figures were given, and none leave; free some space",
            code="not-recorded",
        ) from err
    return Limits(
        needed,
        strata=strata,
        intervals=n_patients(prepared, "validation") >= needed,
        counts=counted(records),
        without=without,
    )
