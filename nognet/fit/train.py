"""One site's training round: weights in, weights out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from nognet.config import SiteConfig, StudyConfig
from nognet.data.store import PreparedSite
from nognet.errors import TrainingError
from nognet.fit.budget import ALONE, private_plan, purpose_of
from nognet.fit.checks import check_private
from nognet.fit.device import cpu_threads, reproducible, resolve_device
from nognet.fit.outcome import RoundOutcome
from nognet.fit.pull import pull_of_round
from nognet.fit.weights import Weights, network_with
from nognet.privacy.policy import stricter

if TYPE_CHECKING:
    from nognet.fit.private import PrivateRound
from nognet.fit.round_steps import Progress, RoundSteps


def train_round(  # noqa: PLR0913  what a round depends on, each once
    study: StudyConfig,
    site: SiteConfig,
    prepared: PreparedSite,
    weights: Weights,
    *,
    round_number: int,
    progress: Progress | None = None,
    correction: Weights | None = None,
    towards: Weights | None = None,
    run_token: str = ALONE,
) -> RoundOutcome:
    """Train the network for one round on a site's training pairs.

    The optimiser starts anew, so a round depends on nothing but its arguments (and, under
    differential privacy, on the site's record of what was spent). So does the moving average of the
    weights, where `training.ema_decay` is on: it is what the round gives, and what a site sends.

    Args:
        study: What the coordinator decided.
        site: What the site decided; its seed orders the samples.
        prepared: The site's pairs.
        weights: Global weights at the start of the round; not changed.
        round_number: From 1.
        progress: Called after each step with the step, the number of steps and the loss.
        correction: SCAFFOLD's ``c - c_i``, added to each gradient; None for none.
        towards: Weights that Ditto's personal model is pulled to, which is what `weights` are then
            (`nognet.fit.personal`); None for none.
        run_token: Name of the run, under which the site's ledger keeps what privacy costs.

    Raises:
        TrainingError: the site has no training pairs, a pair can't be learnt from (it is named), or
            a loss is not finite.
        ConfigError: the device or privacy can't do the study's precision, accumulation or strategy.
        WireError: the weights don't fit the study's network.
        PrivacyError, PrivacyBudgetError: the round may not be spent.
    """
    started = time.perf_counter()
    pairs = prepared.pairs("train")
    if not pairs:
        raise TrainingError(
            f"site {site.name}: no training pairs; expected at least one; see `nognet check` for "
            "why pairs were refused",
            code="no-pairs",
        )
    device = resolve_device(site.device)
    if stricter(study.privacy, site.privacy) is not None:
        check_private(study)
    plan = private_plan(study, site, prepared)
    with cpu_threads(site.threads), reproducible():
        network = network_with(study.network, weights, device)
        pull = pull_of_round(study, network, towards)
        loop = RoundSteps(
            study, site, network, round_number, progress, pull=pull, correction=correction
        )
        spent: PrivateRound | None = None
        mean_loss: float | None = None
        start_loss = loop.start_loss(pairs)
        if plan is None:
            mean_loss = loop.train(pairs)
        else:
            spent = loop.train_with(plan, purpose_of(study, run_token, round_number), pairs)
    return RoundOutcome(
        weights=loop.weights(),
        n_pairs=len(pairs),
        n_patients=len({pair.patient_id for pair in pairs}),
        steps=study.training.steps_per_round,
        mean_loss=mean_loss,
        seconds=time.perf_counter() - started,
        epsilon=spent.epsilon if spent else None,
        delta=spent.delta if spent else None,
        start_loss=start_loss,
        control=loop.control(),
    )
