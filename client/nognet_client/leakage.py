"""The gate before a reply leaves: does the model tell who trained it? The answer stays here."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict

from nognet.config import SiteConfig, StudyConfig
from nognet.data.store import PreparedSite
from nognet.errors import PrivacyError
from nognet.files import write_text_atomic
from nognet.fit.device import cpu_threads, resolve_device
from nognet.fit.leakage import measure_leakage
from nognet.fit.weights import Weights
from nognet.privacy.membership import LEAST_PATIENTS, AttackResult

_log = logging.getLogger("nognet.client")


def is_checked(study: StudyConfig, site: SiteConfig, round_number: int) -> bool:
    """Tell whether the site attacks its model after this round."""
    check = site.leakage.check
    return check == "every" or (check == "last" and round_number == study.rounds)


def check_leakage(  # noqa: PLR0913  a round's facts
    study: StudyConfig,
    site: SiteConfig,
    prepared: PreparedSite,
    weights: Weights,
    start: Weights,
    *,
    round_number: int,
    run_token: str,
) -> None:
    """Attack the weights that would leave; write what came out, warn or refuse.

    Args:
        study: Network, loss, rounds.
        site: When to check and what to warn of.
        prepared: Its training and validation patients.
        weights: After the training.
        start: Before it: the reference of the calibrated attack.
        round_number: From 1.
        run_token: Names the run's folder.

    Raises:
        PrivacyError: with code `leakage`, the model tells too well who trained it; or what was
            found can't be written.
    """
    if not is_checked(study, site, round_number):
        return
    train, validation = prepared.records("train"), prepared.records("validation")
    counts = [len({record.patient_id for record in some}) for some in (train, validation)]
    where = f"{site.name}: round {round_number}"
    if min(counts) < LEAST_PATIENTS:
        _log.warning(
            "%s: leakage isn't checked: %d training and %d validation patients, expected %d of "
            "each; set leakage.check: never to be told no more",
            where,
            *counts,
            LEAST_PATIENTS,
        )
        return
    with cpu_threads(site.threads):
        found = measure_leakage(
            study.network,
            study.loss,
            weights,
            start,
            (prepared.pairs("train"), prepared.pairs("validation")),
            resolve_device(site.device),
            seed=site.seed,
        )
    _write(site, run_token, round_number, found)
    for name, result in found.items():
        _judge(site, where, name, result)


def _write(
    site: SiteConfig, run_token: str, round_number: int, found: dict[str, AttackResult]
) -> None:
    folder = site.state / "leakage" / run_token
    document = {name: asdict(result) for name, result in found.items()}
    text = json.dumps(document, indent=2, allow_nan=False)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_text_atomic(folder / f"round-{round_number:04d}.json", text, mode=0o600)
    except OSError as err:
        raise PrivacyError(
            f"{folder}: what the leakage test found can't be written ({err.strerror}), and the "
            "model was not sent; free some space, let 'state' in site.yaml name a folder that may "
            "be written, or set leakage.check: never",
            code="leakage-not-written",
        ) from err


def _judge(site: SiteConfig, where: str, name: str, result: AttackResult) -> None:
    low, high = result.interval
    words = f"membership inference ({name}) has AUC {result.auc:.3f} ({low:.3f} to {high:.3f})"
    limits = site.leakage
    if limits.refuse_auc is not None and low > limits.refuse_auc:
        raise PrivacyError(
            f"{where}: {words}, above leakage.refuse_auc {limits.refuse_auc:g}; the model was not "
            "sent; train with privacy, for fewer steps, or with more patients",
            code="leakage",
        )
    if low > limits.warn_auc:
        _log.warning("%s: %s, above leakage.warn_auc %g", where, words, limits.warn_auc)
    else:
        _log.info("%s: %s", where, words)
