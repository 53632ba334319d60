"""The record of releases: on disk before the release, never forgotten, never guessed."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from nognet_server.central_dp import charges
from nognet_server.central_dp.charges import CentralState, read_charges, write_charges
from nognet_server.runs.folder import RunFolder

from nognet.errors import FederationError, PrivacyError
from nognet.privacy.accounting import NoisedSteps, PrivacyHistory

HISTORY = PrivacyHistory((NoisedSteps(1.1, 1.0, 3), NoisedSteps(2.0, 1.0, 1)))
NOTHING = PrivacyHistory()


def test_releases_are_read_back_as_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for history in (NOTHING, HISTORY):
        write_charges(folder, history)
        assert read_charges(folder, at_least=NOTHING) == history
    state = CentralState(0.1 + 0.2, HISTORY)
    assert CentralState.from_values(json.loads(json.dumps(state.to_values()))) == state


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "[]",
        "{}",
        '{"schema_version": 1}',
        '{"schema_version": 2, "releases": []}',
        '{"schema_version": 1, "releases": [{"noise_multiplier": 1.0}]}',
        '{"schema_version": 1, "releases": [{"noise_multiplier": 1.0, "rounds": -1}]}',
        '{"schema_version": 1, "releases": [{"noise_multiplier": 0.0, "rounds": 1}]}',
        '{"schema_version": 1, "releases": 7}',
    ],
)
def test_a_record_that_is_missing_or_damaged_is_never_nothing_spent(
    tmp_path: Path, text: str | None
) -> None:
    if text is not None:
        (tmp_path / "central_privacy.json").write_text(text)
    with pytest.raises(PrivacyError, match="can't be relied on"):
        read_charges(RunFolder(tmp_path), at_least=NOTHING)


def test_a_record_that_knows_less_than_the_checkpoint_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write_charges(folder, PrivacyHistory((NoisedSteps(1.1, 1.0, 3),)))
    with pytest.raises(PrivacyError, match="3 releases, the checkpoint has 4"):
        read_charges(folder, at_least=HISTORY)


def test_a_charge_that_a_full_disk_refuses_stops_the_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(charges, "write_json_atomic", full)
    with pytest.raises(FederationError, match="so the round is not released"):
        write_charges(RunFolder(tmp_path), HISTORY)


@pytest.mark.parametrize("norm", [0.0, -1.0, float("nan"), float("inf")])
def test_a_clip_norm_that_clips_nothing_or_all_is_not_taken_from_a_checkpoint(norm: float) -> None:
    with pytest.raises(ValueError, match="clip_norm"):
        CentralState.from_values({"clip_norm": norm, "releases": []})
