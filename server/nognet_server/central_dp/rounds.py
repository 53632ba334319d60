"""Central privacy in a run: opened, charged and applied round by round; does nothing without it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nognet.config import StudyConfig
from nognet.errors import PrivacyBudgetError
from nognet.privacy.central import CentralPlan, cost_in_words
from nognet.privacy.secret import SecretStream
from nognet.wire.flat import FlatWeights
from nognet.wire.records import TrainReply
from nognet_server.central_dp.charges import CentralState, read_charges, write_charges
from nognet_server.central_dp.mechanism import bounded_sum, release
from nognet_server.runs.folder import RunFolder
from nognet_server.runs.state import ServerState
from nognet_server.strategies.aggregation import examples_of
from nognet_server.strategies.rule import Wide

_log = logging.getLogger("nognet.server.central_dp")
EVERYBODY = "all-sites"
"""The site in whose name the noised mean goes to the strategy."""


def begun(plan: CentralPlan | None, length: int) -> CentralState | None:
    """Begin a run's account; say what it will cost.

    Args:
        plan: Of the study.
        length: Numbers that are shared.

    Raises:
        PrivacyBudgetError: the rounds planned would pass the limit.
    """
    if plan is None:
        return None
    plan.check_affordable()
    is_drowned = plan.noise_ratio(length) >= 1
    for line in cost_in_words(plan, length):
        _log.log(logging.WARNING if is_drowned else logging.INFO, "%s", line)
    _log.info(
        "federation.max_update_ratio is not looked at: one site's length would decide whether "
        "another counts; clipping bounds each"
    )
    return CentralState(plan.clip_norm)


def gone_on_with(state: ServerState, folder: RunFolder) -> ServerState:
    """Take up the account of a run that is resumed: no release is forgotten.

    Raises:
        PrivacyError: its record is missing or damaged.
    """
    if state.central is None:
        return state
    history = read_charges(folder, at_least=state.central.history)
    again = history.steps - state.central.history.steps
    if again:
        _log.warning(
            "%d rounds were released and not finished; they stay charged and are played again",
            again,
        )
    return replace(state, central=replace(state.central, history=history))


def recorded_in(folder: RunFolder, state: ServerState, plan: CentralPlan | None) -> ServerState:
    """Begin the record of a run that has no checkpoint yet.

    A folder whose checkpoints were lost has a record already: what it says was released is spent.

    Raises:
        PrivacyError: there is a record, and it is damaged.
        FederationError: it can't be written.
    """
    if folder.charges.exists():
        return gone_on_with(state, folder)
    if plan is not None and state.central is not None:
        write_charges(folder, state.central.history, noise_from=plan.noise_from)
    return state


def may_go_on(plan: CentralPlan | None, state: ServerState) -> bool:
    """Whether the next round stays within the limit; says so when it doesn't."""
    if plan is None or state.central is None or plan.has_room(state.central.history):
        return True
    _log.warning(
        "no further round: after %d releases epsilon is %.3f, one more would pass "
        "central_privacy.max_epsilon %s; the run ends with the rounds it has",
        state.central.history.steps,
        plan.accounts(state.central.history).epsilon,
        plan.max_epsilon,
    )
    return False


def noised(
    study: StudyConfig,
    plan: CentralPlan | None,
    state: ServerState,
    replies: Sequence[TrainReply],
    *,
    folder: RunFolder,
    secret: SecretStream | None = None,
) -> tuple[ServerState, Sequence[TrainReply]]:
    """Charge the round, then put one noised reply in place of all.

    Where the sites made the noise, the one reply is noised already, and charged.

    Args:
        study: For what a site counts by.
        plan: None: state and replies are given back as they are.
        state: Before the round is aggregated.
        replies: Checked, one a site.
        folder: Of the run; the charge is on its disk when this returns.
        secret: Only in tests; else a fresh one.

    Returns:
        The state with its account, and what the strategy may see.

    Raises:
        PrivacyBudgetError: the round would pass the limit.
        FederationError: the charge can't be written.
    """
    if plan is None or state.central is None or plan.share is not None:
        return state, replies
    norm = state.central.clip_norm
    charged = _charged(plan, state, state.central, folder)
    summed = bounded_sum(
        state.weights,
        [(reply, examples_of(study, reply)) for reply in replies],
        clip_norm=norm,
        max_weight=plan.max_weight,
    )
    tell_if_more(plan, summed.replies)
    given = release(plan, summed, clip_norm=norm, secret=secret or SecretStream.fresh())
    after = replace(charged, clip_norm=given.clip_norm)
    return replace(state, central=after), (_as_reply(state, given.update),)


def charged_for_sites(
    plan: CentralPlan | None, state: ServerState, folder: RunFolder
) -> ServerState:
    """Charge a round whose noise the sites make, before one of them gives its noised update.

    Raises:
        PrivacyBudgetError: the round would pass the limit.
        FederationError: the charge can't be written.
    """
    if plan is None or plan.share is None or state.central is None:
        return state
    return replace(state, central=_charged(plan, state, state.central, folder))


def _charged(
    plan: CentralPlan, state: ServerState, central: CentralState, folder: RunFolder
) -> CentralState:
    if not plan.has_room(central.history):
        raise PrivacyBudgetError(
            f"round {state.round_number + 1} is not released: epsilon would pass "
            f"central_privacy.max_epsilon {plan.max_epsilon}; the rounds before are kept"
        )
    history = plan.after_round(central.history)
    write_charges(folder, history, noise_from=plan.noise_from)
    return replace(central, history=history)


def spent_text(plan: CentralPlan | None, state: ServerState) -> str:
    """Say what was spent, for the line of a round; empty without central privacy."""
    if plan is None or state.central is None:
        return ""
    spent = plan.accounts(state.central.history).epsilon
    limit = "" if plan.max_epsilon is None else f" of {plan.max_epsilon:g}"
    return f", epsilon of a site {spent:.3f}{limit} at delta {plan.delta:g}"


def spent_entry(plan: CentralPlan | None, state: ServerState) -> dict[str, Any] | None:
    """Write `metrics.json`'s ``central_privacy``; None without."""
    if plan is None or state.central is None:
        return None
    accounts = plan.accounts(state.central.history)
    stopped = state.round_number < plan.rounds and not plan.has_room(state.central.history)
    return {
        "epsilon": accounts.epsilon,
        "epsilon_prv": accounts.prv,
        "epsilon_rdp": accounts.rdp,
        "delta": plan.delta,
        "planned_epsilon": plan.accounts(plan.whole_run()).epsilon,
        "max_epsilon": plan.max_epsilon,
        "releases": state.central.history.steps,
        "noise_multiplier": plan.noise_multiplier,
        "noise_from": plan.noise_from,
        "honest_sites": plan.share.honest if plan.share else None,
        "clip_norm": state.central.clip_norm,
        "sites": plan.sites,
        "noise_ratio": plan.noise_ratio(state.weights.size),
        "stopped_before_round": state.round_number + 1 if stopped else None,
    }


def _as_reply(state: ServerState, update: Wide) -> TrainReply:
    """Let the noised mean be a round's only reply."""
    with np.errstate(over="ignore"):  # the strategy's weights are checked to be finite
        weights: FlatWeights = (state.weights + update).astype(np.float32)
    return TrainReply(
        EVERYBODY, state.round_number + 1, weights, 1, 1, steps=0, mean_loss=None, seconds=0.0
    )


def tell_if_more(plan: CentralPlan, replies: int) -> None:
    """Warn where more sites count than the sum is divided by."""
    if replies > plan.sites:
        _log.warning(
            "%d sites count, federation.expected_sites is %d, by which the sum is divided: the "
            "mean update is up to %.2g times as long as it should be; raise expected_sites in a "
            "new run",
            replies,
            plan.sites,
            replies / plan.sites,
        )
