"""The record of earlier releases is taken over once, charged to all, and never lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nognet.errors import PrivacyError
from nognet.privacy.accounting import NoisedSteps, PrivacyHistory
from nognet.privacy.ledger import Ledger
from tests.builders.ledgers import ROUND, charged, data_set

ROWS = [
    {"noise_multiplier": 1.0, "sample_rate": 0.1, "steps": 5},
    {"noise_multiplier": 2.0, "sample_rate": 0.2, "steps": 3},
]
STEPS = tuple(NoisedSteps(**row) for row in ROWS)


def record(folder: Path, text: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "history.json"
    path.write_text(json.dumps(ROWS) if text is None else text)
    return path


def test_what_was_spent_before_there_was_a_ledger_is_charged_to_everybody(tmp_path: Path) -> None:
    path = record(tmp_path)
    charge = charged(tmp_path, data_set("anna"))
    assert charge.cost.epsilon_before == PrivacyHistory(STEPS).epsilon(1e-3)
    assert charge.cost.epsilon_after == PrivacyHistory((*STEPS, ROUND)).epsilon(1e-3)
    assert not path.exists()
    [kept] = tmp_path.glob("history-taken-over-*.json")
    assert json.loads(kept.read_text()) == ROWS


def test_it_is_taken_over_once(tmp_path: Path) -> None:
    record(tmp_path)
    ledger = Ledger(tmp_path)
    assert [entry.steps for entry in ledger.entries()] == list(STEPS)
    assert [entry.state for entry in ledger.entries()] == ["earlier", "earlier"]


def test_an_earlier_release_that_is_run_once_more_is_charged_once_more(tmp_path: Path) -> None:
    record(tmp_path)
    Ledger(tmp_path).entries()
    record(tmp_path)  # the very same steps again, so the very same file
    assert [entry.steps for entry in Ledger(tmp_path).entries()] == [*STEPS, *STEPS]


def test_a_crash_after_the_renaming_loses_nothing(tmp_path: Path) -> None:
    record(tmp_path).rename(tmp_path / "history-taken-over-00.json")
    assert [entry.steps for entry in Ledger(tmp_path).entries()] == list(STEPS)
    assert [entry.steps for entry in Ledger(tmp_path).entries()] == list(STEPS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{}",
        '""',
        "[[]]",
        "null",
        "7",
        '["a"]',
        '[{"noise_multiplier": 1.0, "sample_rate": 0.1}]',
        '[{"noise_multiplier": 1.0, "sample_rate": 0.1, "steps": 0}]',
        '[{"noise_multiplier": 1.0, "sample_rate": 0.1, "steps": 2.5}]',
        '[{"noise_multiplier": 1.0, "sample_rate": 0.1, "steps": true}]',
        '[{"noise_multiplier": NaN, "sample_rate": 0.1, "steps": 3}]',
        '[{"noise_multiplier": "1", "sample_rate": 0.1, "steps": 3}]',
        '[{"noise_multiplier": 1.0, "sample_rate": 0.1, "steps": 3, "more": 1}]',
        '{"noise_multiplier": 1.0}',
        "[" * 100_000,
    ],
)
def test_a_damaged_record_is_an_error_and_never_reads_as_nothing_spent(
    tmp_path: Path, text: str
) -> None:
    path = record(tmp_path, text)
    for _ in range(2):
        with pytest.raises(PrivacyError, match=r"history\.json.*damaged") as caught:
            charged(tmp_path, data_set("anna"))
        assert caught.value.public_code == "PrivacyError:bad-history"
    assert path.read_text() == text
    record(tmp_path)  # restored from a backup
    assert len(Ledger(tmp_path).entries()) == 2
