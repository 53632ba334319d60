"""Start a run, or open it again: what stays the same through it, and its state."""

from __future__ import annotations

import logging
import secrets
import time
from dataclasses import dataclass

from flwr.serverapp import Grid

from nognet.config import StudyConfig
from nognet.errors import FederationError
from nognet.fit.parts import part_of, shared_spec
from nognet.fit.site_privacy import plan_for
from nognet.fit.weights import TensorSpec
from nognet.privacy.central import CentralPlan
from nognet.wire.contract import Contract, contract, contract_hash
from nognet.wire.flat import flat_length, pack
from nognet.wire.records import JoinTask
from nognet_server.central_dp.rounds import begun, gone_on_with, recorded_in
from nognet_server.rounds.messages import Patience
from nognet_server.runs.beginning import read_beginning
from nognet_server.runs.checkpoints import (
    RunIdentity,
    check_same_study,
    latest_round,
    load_checkpoint,
    load_identity,
    save_checkpoint,
)
from nognet_server.runs.flower_config import RunSettings
from nognet_server.runs.folder import RunFolder
from nognet_server.runs.metrics_document import utc_now
from nognet_server.runs.state import ServerState

_log = logging.getLogger("nognet.server")


@dataclass(frozen=True)
class Run:
    """What stays the same through a run.

    `spec` are the parameters that all sites share, `central` is the plan of central privacy.
    """

    settings: RunSettings
    folder: RunFolder
    identity: RunIdentity
    contract: Contract
    spec: tuple[TensorSpec, ...]
    grid: Grid
    clock_start: float
    central: CentralPlan | None = None

    @property
    def study(self) -> StudyConfig:
        """The study."""
        return self.settings.study

    @property
    def patience(self) -> Patience:
        """How long a round's replies are waited for."""
        limits = self.study.federation
        return Patience(
            limits.round_timeout_s,
            self.settings.lost_after_s,
            self.settings.poll_s,
            limits.site_timeouts_s,
            limits.straggler_factor,
            limits.straggler_grace_s,
        )

    @property
    def join_task(self) -> JoinTask:
        """The question that every site is asked first."""
        return JoinTask(self.identity.study_json, self.contract, self.identity.run_token)

    def seconds(self, state: ServerState) -> float:
        """Seconds of work: the rounds of earlier sessions and this session's wall time."""
        return state_seconds(state) + time.monotonic() - self.clock_start


def state_seconds(state: ServerState) -> float:
    """Sum the wall time of the rounds done."""
    return sum(float(entry["seconds"]) for entry in state.history)


def open_run(grid: Grid, settings: RunSettings) -> tuple[Run, ServerState]:
    """Start a run with the weights that its `init` says, or load its last checkpoint.

    Raises:
        ConfigError: the run is resumed with another study (every difference is named), or its
            first weights were not laid ready.
        PrivacyError: central privacy can't be met, or its record is damaged.
        PrivacyBudgetError: the rounds planned would pass its limit.
        FederationError: the run was started with a release whose contract differs.
        WireError: the checkpoint is damaged.
    """
    study, folder = settings.study, RunFolder(settings.run_folder)
    spec = shared_spec(study)
    agreed = contract(study)
    last = latest_round(folder) if settings.resume else None
    central = plan_for(study)
    if last is None:
        first_weights = read_beginning(study, folder)
        identity = RunIdentity(
            run_token=secrets.token_hex(16),
            study_json=study.for_sites(),
            contract_hash=contract_hash(agreed),
            started=utc_now(),
            began_with=first_weights.lineage,
        )
        first = part_of(first_weights.weights, spec)
        state = ServerState(
            0,
            pack(first, spec),
            central=begun(central, flat_length(spec)),
            lineage=dict.fromkeys(first_weights.sites, 0),
        )
        state = recorded_in(folder, state, central)
        save_checkpoint(folder, identity, state)
    else:
        identity = load_identity(folder, last)
        check_same_study(identity.study_json, study)
        _check_same_contract(identity, agreed)
        loaded = load_checkpoint(folder, last, length=flat_length(spec))
        state = gone_on_with(loaded, folder)
        _log.info("resumed after round %d of %d", last, study.rounds)
        if study.federation.stragglers == "next_round":
            _log.info(
                "updates that were still awaited when the run ended do not count: their sites are "
                "asked anew"
            )
    return Run(settings, folder, identity, agreed, spec, grid, time.monotonic(), central), state


def _check_same_contract(identity: RunIdentity, agreed: Contract) -> None:
    if identity.contract_hash != contract_hash(agreed):
        raise FederationError(
            "the run was started with another release of nognet, whose numbers mean something "
            "else; resume with that release, or start a new run",
            code="other-contract",
        )
