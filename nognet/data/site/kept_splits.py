"""The splits a site has given its patients: kept in the state folder, moved only when asked to."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nognet.config import SiteConfig
from nognet.data.site.split import assign_splits, patient_stratum
from nognet.data.stored_pair import PairRecord
from nognet.errors import SiteDataError
from nognet.files import write_text_atomic
from nognet.types import SPLITS, Split

SPLITS_NAME = "splits.json"
log = logging.getLogger("nognet.prepare")


@dataclass(frozen=True)
class _Kept:
    """Seed and shares of an earlier preparation, and the split it gave each patient."""

    settings: dict[str, Any]
    patients: dict[str, Split]


def keep_splits(
    site: SiteConfig, records: Sequence[PairRecord], *, resplit: bool = False
) -> dict[str, Split]:
    """Assign patients to splits; who has one keeps it while seed and shares stay the same.

    Args:
        site: Gives seed, shares and the state folder.
        records: The pairs that are used.
        resplit: Let patients move where seed or shares have changed.

    Raises:
        SiteDataError: patients would move (``resplit``), what was kept is damaged
            (``splits-damaged``), or the state folder can't be used.
    """
    path = site.state / SPLITS_NAME
    settings = {"seed": site.seed, "split": site.split.model_dump(mode="json")}
    kept = _read(path)
    patients = sorted({r.patient_id for r in records})
    strata = {p: patient_stratum(r.stratum for r in records if r.patient_id == p) for p in patients}
    before = kept.patients if kept and kept.settings == settings else {}
    splits = assign_splits(strata, site.split, seed=site.seed, before=before)
    if kept and kept.settings != settings:
        moved = {
            p: (kept.patients[p], s) for p, s in splits.items() if kept.patients.get(p, s) != s
        }
        if moved:
            _say(path, moved, len(splits), allowed=resplit)
    write_state(path, {"settings": settings, "patients": {**before, **splits}})
    return splits


def write_state(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON for the site's eyes only.

    Raises:
        SiteDataError: the state folder can't be written.
    """
    try:
        write_text_atomic(path, json.dumps(content, indent=2) + "\n", mode=0o600)
    except OSError as err:
        raise _unusable(path, err) from err


def _read(path: Path) -> _Kept | None:
    """Read what an earlier preparation kept; None where there was none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        patients = dict(content["patients"])
        settings = dict(content["settings"])
    except FileNotFoundError:
        return None
    except OSError as err:
        raise _unusable(path, err) from err
    except (ValueError, KeyError, TypeError, RecursionError) as err:
        raise _damaged(path) from err
    if any(split not in SPLITS for split in patients.values()):
        raise _damaged(path)
    return _Kept(settings, patients)


def _say(
    path: Path, moved: Mapping[str, tuple[Split, Split]], n_patients: int, *, allowed: bool
) -> None:
    """Say loudly who moves; refuse it unless it was asked for."""
    ways = Counter(f"{old} to {new}" for old, new in moved.values())
    counts = ", ".join(f"{n} from {way}" for way, n in sorted(ways.items()))
    told = f"{len(moved)} of {n_patients} patients move between the splits: {counts}"
    if not allowed:
        raise SiteDataError(
            f"{path}: seed or split of site.yaml have changed; with them {told}. What was trained "
            "before has seen the patients it would be tested on. Set them back, or run `nognet "
            "prepare --resplit` and train anew",
            code="resplit",
        )
    log.warning("%s; models trained before must not be tested with these splits", told)


def _damaged(path: Path) -> SiteDataError:
    return SiteDataError(
        f"{path}: the splits of the site's patients are damaged; restore the file from a backup, "
        "or delete it to have all patients split anew (patients may then move between training "
        "and test)",
        code="splits-damaged",
    )


def _unusable(path: Path, err: OSError) -> SiteDataError:
    return SiteDataError(
        f"{path}: can't be read or written ({err.strerror}); 'state' in site.yaml has to name a "
        "folder that may be written, with room on its disk",
        code="state-write",
    )
