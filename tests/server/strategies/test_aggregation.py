"""What holds for every strategy: its laws, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nognet_server.runs.checkpoints import RunIdentity, load_checkpoint, save_checkpoint
from nognet_server.runs.folder import RunFolder
from nognet_server.runs.state import ServerState, StrategyState
from nognet_server.strategies import RULES

from nognet.config import STRATEGY_NAMES, StudyConfig
from nognet.errors import FederationError
from nognet.wire.flat import FlatWeights
from tests.builders.strategy_rounds import LENGTH, START, cohort, combined, study_with, with_weights

IDENTITY = RunIdentity("ab" * 16, "{}", "cd" * 32, "2026-01-01T00:00:00+00:00")
ROBUST = {"fedmedian", "fedtrimmedavg", "krum", "multikrum", "bulyan"}


def same(one: tuple[FlatWeights, StrategyState], two: tuple[FlatWeights, StrategyState]) -> bool:
    return (
        np.array_equal(one[0], two[0])
        and set(one[1]) == set(two[1])
        and all(np.array_equal(one[1][name], two[1][name]) for name in one[1])
    )


def test_every_strategy_of_the_configuration_has_a_rule() -> None:
    assert set(RULES) == set(STRATEGY_NAMES)


@pytest.mark.parametrize("name", STRATEGY_NAMES)
@given(order=st.permutations(range(7)), seed=st.integers(0, 9))
def test_the_order_of_replies_changes_no_bit(
    name: str, order: list[int], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    study = study_with(tmp_path_factory.getbasetemp(), name)
    replies = cohort(7, seed)
    shuffled = [replies[i] for i in order]
    first, again = combined(study, replies), combined(study, shuffled)
    assert same(first, again)
    weights, kept = first
    second = combined(study, replies, number=2, weights=weights, kept=kept)
    assert same(second, combined(study, shuffled, number=2, weights=weights, kept=kept))


@pytest.mark.parametrize("name", STRATEGY_NAMES)
def test_a_run_resumed_from_a_checkpoint_has_the_same_bits(tmp_path: Path, name: str) -> None:
    study, folder = study_with(tmp_path, name), RunFolder(tmp_path)
    state = ServerState(0, START.copy())
    for number in (1, 2, 3):
        weights, kept = combined(
            study, cohort(7, number), number=number, weights=state.weights, kept=state.strategy
        )
        entry: dict[str, Any] = {"round": number}
        through = ServerState(number, weights, kept, history=(entry,))
        save_checkpoint(folder, IDENTITY, through)
        state = load_checkpoint(folder, number, length=LENGTH)
        assert same((through.weights, through.strategy), (state.weights, state.strategy))


@pytest.mark.parametrize("name", STRATEGY_NAMES)
def test_aggregating_changes_none_of_its_arguments(tmp_path: Path, name: str) -> None:
    study, replies = study_with(tmp_path, name), cohort(7)
    _, kept = combined(study, replies)
    arrays = [START, *kept.values(), *(r.weights for r in replies)]
    before = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    combined(study, replies, number=2, kept=kept)
    assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))


@pytest.mark.parametrize("name", STRATEGY_NAMES)
def test_sites_that_agree_with_the_global_weights_leave_them(tmp_path: Path, name: str) -> None:
    replies = [with_weights(r, START) for r in cohort(7)]
    new, _ = combined(study_with(tmp_path, name), replies)
    assert new.dtype == np.float32
    assert np.allclose(new, START, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", sorted(ROBUST))
@pytest.mark.parametrize("bad", [1e6, -1e6, 0.0, "flipped", "constant"])
@pytest.mark.parametrize("where", [0, 3, 6])
def test_a_robust_rule_stays_among_the_honest_sites(
    tmp_path: Path, name: str, bad: float | str, where: int
) -> None:
    replies = cohort(7)
    honest = np.stack([r.weights for i, r in enumerate(replies) if i != where])
    poison = {
        "flipped": START - 5 * (replies[where].weights - START),
        "constant": np.ones(LENGTH),
    }.get(str(bad), START + np.float32(bad if isinstance(bad, float) else 0) * np.ones(LENGTH))
    replies[where] = replace(
        with_weights(replies[where], np.clip(poison, -1e6, 1e6)), n_pairs=10**9, n_patients=10**9
    )
    new, _ = combined(study_with(tmp_path, name), replies)
    # number by number the median and the trimmed mean can't leave them; the others choose whole
    # replies, and may take a bad one that is no farther from the honest than these are apart
    near = 0 if name in {"fedmedian", "fedtrimmedavg"} else 2
    slack = 1e-6 + near * np.ptp(honest, axis=0)
    assert (new >= honest.min(axis=0) - slack).all()
    assert (new <= honest.max(axis=0) + slack).all()


@pytest.mark.parametrize("name", sorted(ROBUST))
def test_fewer_replies_than_a_rule_needs_are_an_error(tmp_path: Path, name: str) -> None:
    study = study_with(tmp_path, name)
    needed = study.strategy.sites_needed
    combined(study, cohort(needed))
    with pytest.raises(FederationError, match=f"{name} needs {needed}") as caught:
        combined(study, cohort(needed - 1))
    assert f"found {needed - 1} usable replies" in str(caught.value)
    assert caught.value.code == "too-few-for-strategy"


@pytest.mark.parametrize("name", STRATEGY_NAMES)
def test_no_reply_at_all_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(FederationError, match="no usable reply"):
        combined(study_with(tmp_path, name), [])


@pytest.mark.parametrize(
    "strategy",
    [
        {"name": "fedavgm", "server_learning_rate": 1e38},
        {"name": "fedadam", "server_learning_rate": 1e30},
        {"name": "scaffold", "server_learning_rate": 1e30},
    ],
)
def test_weights_that_no_checkpoint_could_hold_are_an_error(
    tmp_path: Path, strategy: dict[str, Any]
) -> None:
    study: StudyConfig = study_with(tmp_path, strategy)
    with pytest.raises(FederationError, match="not finite") as caught:
        combined(study, cohort(7))
    assert caught.value.code == "not-finite"


@pytest.mark.parametrize("name", STRATEGY_NAMES)
def test_what_a_strategy_keeps_has_a_form_that_checkpoints_read(tmp_path: Path, name: str) -> None:
    _, kept = combined(study_with(tmp_path, name), cohort(7))
    assert all(array.dtype == np.float32 for array in kept.values())
    assert all(array.shape in {(LENGTH,), (1,)} for array in kept.values())
