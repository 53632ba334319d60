"""A site's personal model: fine-tuned after the last round, or trained beside the global (Ditto).

It is trained without noise also where privacy protects what leaves the site: it stays.
"""

from __future__ import annotations

from pathlib import Path

from nognet.config import FedAvgConfig, SiteConfig, StudyConfig
from nognet.data.store import PreparedSite
from nognet.fit.round_steps import Progress
from nognet.fit.train import train_round
from nognet.fit.weights import Weights

MODEL_NAME = "personal.nognet"


def personal_folder(state: Path, run_token: str) -> Path:
    """Where a site keeps what of a run is its own; `MODEL_NAME` there is its own model."""
    return state / "personal" / run_token


def fine_tuned(
    study: StudyConfig,
    site: SiteConfig,
    prepared: PreparedSite,
    weights: Weights,
    *,
    progress: Progress | None = None,
) -> Weights:
    """Train all of a model further on the site's own pairs, as after the last round.

    Its batches and learning rate are those of a round after the last.

    Args:
        study: `fine_tune_steps`; with 0 the model is given back as it is.
        site: Its seed, device and threads.
        prepared: Its pairs.
        weights: The chosen model as the site has it; not changed.
        progress: Called after each step with the step, the number of steps and the loss.

    Raises:
        TrainingError: there are no training pairs, or a loss is not finite.
    """
    steps = study.personalisation.fine_tune_steps
    if steps == 0:
        return weights
    training = study.training.model_copy(update={"steps_per_round": steps})
    return train_round(
        _at_home(study).model_copy(update={"training": training}),
        _without_noise(site),
        prepared,
        weights,
        round_number=study.rounds + 1,
        progress=progress,
    ).weights


def ditto_round(  # noqa: PLR0913  what a round depends on, each once
    study: StudyConfig,
    site: SiteConfig,
    prepared: PreparedSite,
    personal: Weights,
    *,
    towards: Weights,
    round_number: int,
    progress: Progress | None = None,
) -> Weights:
    """Train the personal model for one round, pulled to the global weights at the round's start.

    It sees the batches that the round's own training sees (Li et al. 2021, algorithm 1). With
    lambda 0 it is what the site would have if it trained alone, bit for bit.

    Args:
        study: `ditto_lambda`.
        site: Its seed, device and threads.
        prepared: Its pairs.
        personal: The personal model before the round; not changed.
        towards: Global weights at the start of the round, with the site's own local parameters.
        round_number: From 1.
        progress: Called after each step with the step, the number of steps and the loss.

    Raises:
        TrainingError: there are no training pairs, or a loss is not finite.
    """
    return train_round(
        _at_home(study),
        _without_noise(site),
        prepared,
        personal,
        round_number=round_number,
        progress=progress,
        towards=towards,
    ).weights


def _at_home(study: StudyConfig) -> StudyConfig:
    """The study without what belongs to what leaves a site: strategy and privacy."""
    return study.model_copy(update={"strategy": FedAvgConfig(), "privacy": None})


def _without_noise(site: SiteConfig) -> SiteConfig:
    return site.model_copy(update={"privacy": None})
