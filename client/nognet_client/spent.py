"""The ledger against what the site has told: an older copy of it lacks what the audit log has."""

from __future__ import annotations

from nognet.audit.log import AuditLog, egress_folder
from nognet.audit.verify import read_entries
from nognet.config import SiteConfig, StudyConfig
from nognet.fit.budget import ledger_of
from nognet.privacy import ledger_file
from nognet.privacy.ledger_entries import charged_rounds
from nognet.privacy.policy import stricter


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


def _last_told(site: SiteConfig) -> tuple[str, int] | None:
    """Find the last noised round that was allowed to leave, by the audit log: its run and round."""
    log = AuditLog(egress_folder(site.state))
    told = None
    for _, entry in read_entries(log.path) if log.path.exists() else ():
        event = {} if entry is None else entry.event
        if event.get("kind") == "train" and event.get("epsilon") is not None:
            told = str(event.get("run")), int(event.get("round", 0))
    return told
