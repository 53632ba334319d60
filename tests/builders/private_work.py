"""A site's work that charges its ledger as private training does, and trains nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

from nognet_client.tasks import Work

from nognet.config import SiteConfig, StudyConfig
from nognet.data.store import PreparedSite
from nognet.fit.budget import ledger_of, private_plan, purpose_of
from nognet.fit.outcome import RoundOutcome
from tests.builders.federation import stub_work


def private_work(*, told: str = "of_run", seconds: float = 0.1, **outcome: Any) -> Work:
    """Make work whose rounds are charged and taken under privacy, and moved by the stub.

    Args:
        told: What the outcome gives as epsilon: `of_run`, or `charged`, which may not leave.
        seconds: Of each round.
        outcome: Other parts of it.
    """
    usual = stub_work()

    def train(
        study: StudyConfig, site: SiteConfig, prepared: PreparedSite, *rest: Any, **named: Any
    ) -> RoundOutcome:
        plan, ledger = private_plan(study, site, prepared), ledger_of(site)
        assert plan is not None
        purpose = purpose_of(study, named["run_token"], named["round_number"])
        charge = ledger.charge(plan.settings, plan.data, purpose, plan.round_steps)
        ledger.confirm(charge, steps=plan.round_steps.steps)
        done = usual.train(study, site, prepared, *rest, **named)
        epsilon = charge.of_run if told == "of_run" else charge.cost.epsilon_after
        values = {"mean_loss": None, "epsilon": epsilon, "delta": plan.settings.delta}
        return dataclasses.replace(done, seconds=seconds, **{**values, **outcome})

    return dataclasses.replace(usual, train=train)
