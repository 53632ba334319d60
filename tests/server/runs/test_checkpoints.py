from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nognet_server.runs import checkpoints
from nognet_server.runs.checkpoints import (
    RunIdentity,
    check_same_study,
    latest_round,
    load_checkpoint,
    load_identity,
    load_weights,
    save_checkpoint,
)
from nognet_server.runs.folder import RunFolder
from nognet_server.runs.state import Best, ServerState

from nognet.errors import ConfigError, FederationError, WireError
from tests.builders.federation import make_study

IDENTITY = RunIdentity("ab" * 16, "{}", "cd" * 32, "2026-01-01T00:00:00+00:00")
LENGTH = 6


def state(number: int = 2) -> ServerState:
    rng = np.random.default_rng(number)
    return ServerState(
        round_number=number,
        weights=rng.normal(size=LENGTH).astype(np.float32),
        strategy={"m_t": rng.normal(size=LENGTH).astype(np.float32)},
        best=Best(1, 0.123456789012345),
        history=tuple({"round": k, "seconds": k / 3} for k in range(1, number + 1)),
        lineage={"site_b": 0, "site_a": 2},
    )


def test_a_checkpoint_gives_the_state_back_bit_for_bit(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for number in (1, 2):
        save_checkpoint(folder, IDENTITY, state(number))
    back = load_checkpoint(folder, 2, length=LENGTH)
    assert load_identity(folder, 2) == IDENTITY
    assert np.array_equal(back.weights, state().weights)
    assert np.array_equal(back.strategy["m_t"], state().strategy["m_t"])
    assert (back.round_number, back.best, back.history) == (2, state().best, state().history)
    assert back.lineage == state().lineage
    assert np.array_equal(load_weights(folder, 1, length=LENGTH), state(1).weights)


def test_the_latest_round_is_found_by_number_not_by_name(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert latest_round(folder) is None
    for number in (9_999, 10_000, 2):
        save_checkpoint(folder, IDENTITY, state(2).__class__(number, state().weights))
    (folder.checkpoints / "round_99999.nognet.tmp").touch()
    assert latest_round(folder) == 10_000


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\x80\x04pickle"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    folder = RunFolder(tmp_path)
    save_checkpoint(folder, IDENTITY, state())
    folder.checkpoint(2).write_bytes(content)
    with pytest.raises(WireError, match=r"round_0002\.nognet"):
        load_checkpoint(folder, 2, length=LENGTH)


def test_a_cut_checkpoint_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    path = save_checkpoint(folder, IDENTITY, state())
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(WireError, match="damaged"):
        load_checkpoint(folder, 2, length=LENGTH)


def test_weights_of_another_length_are_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    save_checkpoint(folder, IDENTITY, state())
    with pytest.raises(WireError, match="shape"):
        load_checkpoint(folder, 2, length=LENGTH + 1)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(WireError, match="no such checkpoint"):
        load_weights(RunFolder(tmp_path), 3, length=LENGTH)


def test_a_full_disk_keeps_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)
    save_checkpoint(folder, IDENTITY, state(1))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints.safetensors.numpy, "save_file", full)
    with pytest.raises(FederationError, match="No space left"):
        save_checkpoint(folder, IDENTITY, state(2))
    assert latest_round(folder) == 1
    assert [path.name for path in folder.checkpoints.iterdir()] == ["round_0001.nognet"]


def test_another_study_is_refused_naming_every_difference(tmp_path: Path) -> None:
    before = make_study(tmp_path).for_sites()
    now = make_study(tmp_path, rounds=7, strategy={"name": "fedprox"})
    with pytest.raises(ConfigError) as caught:
        check_same_study(before, now)
    assert "rounds: 2 in the run, 7 now" in str(caught.value)
    assert 'strategy.name: "fedavg" in the run, "fedprox" now' in str(caught.value)
    check_same_study(before, make_study(tmp_path / "elsewhere"))
