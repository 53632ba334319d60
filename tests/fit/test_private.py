from __future__ import annotations

import fcntl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nognet.config import PrivacyConfig, SiteConfig
from nognet.errors import PrivacyError
from nognet.fit.private import history_path, read_history, spend
from nognet.privacy.accounting import NoisedSteps, PrivacyHistory

PRIVACY = PrivacyConfig(noise_multiplier=2.0, delta=1e-3)
ROUND = NoisedSteps(2.0, 0.1, 5)


def site_at(folder: Path) -> SiteConfig:
    return SiteConfig(name="here", studies=folder / "studies.csv", state=folder / "state")


def test_of_two_processes_that_spend_at_once_neither_is_forgotten(tmp_path: Path) -> None:
    site = site_at(tmp_path)
    folder = history_path(site).parent
    folder.mkdir(parents=True)
    with ThreadPoolExecutor(1) as other, (folder / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # this one has read the record and is about to write
        waiting = other.submit(spend, PRIVACY, site, ROUND, n_patients=50)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=1.0)
        history_path(site).write_text(PrivacyHistory((ROUND,)).to_json())
        fcntl.flock(held, fcntl.LOCK_UN)
        cost = waiting.result(timeout=60)
    assert cost.history == read_history(site) == PrivacyHistory((ROUND,)).then(ROUND)


def test_a_record_that_cannot_be_written_is_said_before_anything_trains(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "privacy").write_text("a file where the folder belongs")
    with pytest.raises(PrivacyError, match=r"history\.json.*'state' in site\.yaml"):
        spend(PRIVACY, site_at(tmp_path), ROUND, n_patients=50)
