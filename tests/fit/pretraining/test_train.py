from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from nognet.errors import TrainingError
from nognet.fit.pretraining.train import Midway, pretrain
from nognet.fit.weights import Weights, initial_weights
from tests.builders.pretraining import tiny_pretraining


def same(one: Weights, other: Weights) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_the_same_seed_gives_the_same_bits_and_going_on_does_too() -> None:
    what = tiny_pretraining()
    kept: list[Midway] = []

    def keep(state: Callable[[], Midway]) -> None:
        kept.append(state())

    whole = pretrain(what, keep=keep)
    assert [midway.steps for midway in kept] == [1, 2, 3]
    assert same(kept[-1].weights, whole)
    steps: list[int] = []
    rest = pretrain(what, begun=kept[0], progress=lambda step, _of, _loss: steps.append(step))
    assert steps == [2, 3]
    assert same(rest, whole)


def test_it_moves_away_from_the_first_weights_which_another_seed_changes() -> None:
    what = tiny_pretraining(steps=1)
    first = initial_weights(what.network, what.settings.seed)
    assert not same(pretrain(what), first)
    other = tiny_pretraining(steps=1, seed=2)
    assert not same(pretrain(other), pretrain(what))


def test_a_loss_that_is_not_finite_names_the_step_and_the_setting() -> None:
    what = tiny_pretraining(steps=1)
    weights = {
        name: torch.full_like(tensor, torch.inf)
        for name, tensor in initial_weights(what.network, 1).items()
    }
    with pytest.raises(TrainingError, match=r"step 1 of 1: .*init\.learning_rate"):
        pretrain(what, begun=Midway(0, weights, {}))
