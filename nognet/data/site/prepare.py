"""From `studies.csv` to the store of prepared pairs: all patients side by side, then the split."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from nognet.config import SiteConfig
from nognet.data.pairs.outcome import outcome_as_json
from nognet.data.pairs.task import settings_digest
from nognet.data.site.examine import Examination, Progress, examine_site
from nognet.data.site.kept_splits import keep_splits, write_state
from nognet.data.site.pseudonym import load_or_make_key
from nognet.data.store import PreparedSite, StoreSource, open_store, write_index
from nognet.data.stored_pair import CACHE_WRITE, PAIRS_FOLDER, PairRecord
from nognet.errors import SiteDataError
from nognet.files import held

__all__ = [
    "Examination",
    "Progress",
    "examine_site",
    "prepare_site",
    "prepare_site_with_report",
    "prepared_or_prepare",
]

REPORT_NAME = "prepare-report.json"
KEPT_SECONDS = 24 * 3600.0
"""Pairs that no index names any more are kept so long, for whoever trains on an older index."""
log = logging.getLogger("nognet.prepare")


def prepare_site(
    site: SiteConfig, *, progress: Progress | None = None, resplit: bool = False
) -> PreparedSite:
    """Prepare a site's pairs and store them; what is unchanged is reused.

    Args:
        site: The site's configuration.
        progress: Told after each patient.
        resplit: Let patients move between the splits where seed or shares have changed.

    Raises:
        SiteDataError: `studies.csv` has faults, no pair is usable, patients would move between
            the splits, or cache or state can't be written.
    """
    return prepare_site_with_report(site, progress=progress, resplit=resplit)[0]


def prepare_site_with_report(
    site: SiteConfig, *, progress: Progress | None = None, resplit: bool = False
) -> tuple[PreparedSite, Examination]:
    """Prepare a site's pairs and say what became of each.

    Raises:
        SiteDataError: see `prepare_site`.
    """
    with _locked(site.cache):
        source = _source(site)
        examination = examine_site(site, progress=progress)
        records = examination.records
        if not records:
            raise _no_pairs(site, examination)
        splits = keep_splits(site, records, resplit=resplit)
        _keep_for_readers(site.cache, records)
        prepared = write_index(site.cache, records, splits, roi=site.roi, source=source)
        _forget_stale(site.cache, records)
        _write_report(site, examination)
    return prepared, examination


def prepared_or_prepare(site: SiteConfig, *, progress: Progress | None = None) -> PreparedSite:
    """Open the store where it was made from the site's table and settings; prepare it where not.

    The files themselves are not looked at: that is what `prepare_site` does.

    Raises:
        SiteDataError: preparation failed.
    """
    try:
        prepared = open_store(site.cache)
    except SiteDataError:
        return prepare_site(site, progress=progress)
    return prepared if _is_current(site, prepared) else prepare_site(site, progress=progress)


def _is_current(site: SiteConfig, prepared: PreparedSite) -> bool:
    """Tell whether a store still is what the site's table and settings ask for."""
    made_from, index = prepared.index.source, prepared.index
    if prepared.roi != site.roi:
        return False
    if made_from is None and not any(record.inputs for record in index.records):
        return True  # pairs that were written without files
    if made_from is not None and made_from.settings != _settings(site):
        return False
    if not site.studies.exists():
        log.warning(
            "%s: no such file; using the %d pairs that were prepared from it in %s, which can't "
            "be held against the site's files any more",
            site.studies,
            len(index.records),
            prepared.folder,
        )
        return True
    return made_from == _source(site)


def _source(site: SiteConfig) -> StoreSource | None:
    """Digest the table and the settings; None where there is no table to be read."""
    try:
        table = hashlib.sha256(site.studies.read_bytes()).hexdigest()
    except (OSError, ValueError):
        return None  # examining the site says so
    keyed = load_or_make_key(site.state).of_contents("table", str(site.studies.parent), table)
    return StoreSource(table=keyed, settings=_settings(site))


def _settings(site: SiteConfig) -> str:
    """Digest the settings that decide what a store holds."""
    parts = (
        settings_digest(site.roi, site.preparation),
        site.split.digest(),
        str(site.seed),
    )
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _keep_for_readers(cache: Path, records: Sequence[PairRecord]) -> None:
    """Mark the time at which pairs of the last index are superseded; see `KEPT_SECONDS`."""
    wanted = {record.file for record in records}
    with contextlib.suppress(SiteDataError):
        for record in open_store(cache).index.records:
            if record.file not in wanted:
                with contextlib.suppress(OSError):
                    os.utime(cache / record.file)


def _forget_stale(cache: Path, records: Sequence[PairRecord]) -> None:
    """Delete pairs that no index has named for a while, and what killed runs left half-written."""
    wanted = {cache / record.file for record in records}
    for file in (cache / PAIRS_FOLDER).iterdir():
        if file not in wanted and file.suffix in (".npz", ".tmp"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - file.stat().st_mtime > KEPT_SECONDS:
                    file.unlink()


def _write_report(site: SiteConfig, examination: Examination) -> None:
    """Keep what became of each pair in the state folder, for the site's eyes only."""
    content = {
        "seconds": examination.seconds,
        "pairs": [outcome_as_json(outcome) for outcome in examination.outcomes],
    }
    write_state(site.state / REPORT_NAME, content)


def _no_pairs(site: SiteConfig, examination: Examination) -> SiteDataError:
    outcomes = examination.outcomes
    if not outcomes:
        return SiteDataError(
            f"{site.studies}: {examination.rows} rows, but no nodule has two dates; a pair needs "
            "two rows of the same patient and nodule",
            code="empty-site",
        )
    codes = sorted({f.code for o in outcomes for f in o.findings if f.severity != "warning"})
    decisive = (next(f for f in o.findings if f.severity != "warning") for o in outcomes[:5])
    reasons = [finding.message for finding in decisive]
    return SiteDataError(
        f"{site.studies}: all {len(outcomes)} pairs were refused ({', '.join(codes)}):\n"
        + "\n".join(f"  {reason}" for reason in reasons),
        code="no-usable-pair",
    )


@contextlib.contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """Let one preparation at a time write to a cache; a second one waits and then reuses."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held(cache / ".lock"))  # the folder holds patients' images
        except OSError as err:
            raise SiteDataError(
                f"{cache}: the cache folder can't be written ({err.strerror}); "
                "'cache' in site.yaml has to name a folder that may be written",
                code=CACHE_WRITE,
            ) from err
        yield
