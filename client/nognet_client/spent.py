"""What the site has spent against what the audit log says left: an older copy lacks some of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nognet.audit.log import AuditLog, egress_folder
from nognet.audit.verify import read_entries
from nognet.config import SiteConfig, StudyConfig
from nognet.errors import PrivacyError
from nognet.fit.budget import ledger_of
from nognet.privacy import ledger_file
from nognet.privacy.ledger_entries import charged_rounds
from nognet.privacy.policy import stricter
from nognet_client.masking.state import MaskingState


def check_told_is_charged(study: StudyConfig, site: SiteConfig) -> None:
    """Refuse to spend on a ledger that lacks the last round whose epsilon left the site.

    The ledger's own mark lies beside it and is put back with it; the log lies elsewhere.

    Args:
        study: Under no privacy, its own or the site's, nothing is looked at.
        site: Whose ledger and log.

    Raises:
        PrivacyError: it is an older copy (``ledger-behind``), or can't be used.
    """
    private = stricter(study.privacy, site.privacy) is not None
    told = _last_told(site) if private else None
    if told is None:
        return
    run, number = told
    ledger = ledger_of(site)
    if number not in charged_rounds(ledger.entries(), run):
        found = f"round {number} of run {run[:8]} left with its epsilon and is not in it"
        raise ledger_file.behind(ledger.path, found)


def check_told_is_noted(site: SiteConfig) -> None:
    """Refuse to give noised updates where fewer are noted than left, of any run.

    Raises:
        PrivacyError: `state/secure` is an older copy, or a part of it was removed.
    """
    told: dict[str, int] = {}
    for event in _events(site):
        noise = event.get("noise")
        if event.get("kind") == "train" and isinstance(noise, dict):
            run = str(event.get("run"))
            told[run] = max(told.get(run, 0), int(noise.get("releases", 0)))
    for run, releases in sorted(told.items()):
        noted = len(MaskingState(site.state, run).noised())
        if noted < releases:
            raise PrivacyError(
                f"{site.state / 'secure' / run}: {noted} noised updates of the run are noted, and "
                f"by the audit log {releases} left; it is an older copy, or was removed. Put the "
                "newer one back: what is not noted would be spent again",
                code="secure-behind",
            )


def _events(site: SiteConfig) -> Iterator[Mapping[str, Any]]:
    log = AuditLog(egress_folder(site.state))
    for _, entry in read_entries(log.path) if log.path.exists() else ():
        if entry is not None:
            yield entry.event


def _last_told(site: SiteConfig) -> tuple[str, int] | None:
    """Find the last noised round that was allowed to leave, by the audit log: its run and round."""
    told = None
    for event in _events(site):
        if event.get("kind") == "train" and event.get("epsilon") is not None:
            told = str(event.get("run")), int(event.get("round", 0))
    return told
