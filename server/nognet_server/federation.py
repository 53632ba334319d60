"""A whole run: join, rounds, final test; state and figures on disk after every round."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from flwr.serverapp import Grid

from nognet.errors import FederationError
from nognet.files import DISK_TROUBLE
from nognet.report.metrics_file import write_metrics
from nognet.report.metrics_schema import RunStatus
from nognet.wire.flat import flat_length
from nognet_server.central_dp.rounds import (
    charged_for_sites,
    may_go_on,
    noised,
    spent_text,
)
from nognet_server.joining import Wanted, admit, present, wait_for_sites
from nognet_server.roster import Member
from nognet_server.rounds.asking import (
    Late,
    ask_to_evaluate,
    ask_to_train,
    away_or_at_work,
)
from nognet_server.rounds.cross_site import let_models_visit
from nognet_server.rounds.hours import HoursAwaited
from nognet_server.rounds.loop import (
    RoundFailedError,
    RoundReport,
    after_training,
    barred_sites,
    check_enough,
    finish_round,
    struck,
)
from nognet_server.runs.checkpoints import load_weights, save_checkpoint
from nognet_server.runs.flower_config import RunSettings
from nognet_server.runs.metrics_document import Final, RunValues, metrics_document
from nognet_server.runs.model import save_run_model
from nognet_server.runs.opening import Run, open_run, state_seconds
from nognet_server.runs.state import ServerState
from nognet_server.secure_sum.training import ask_to_train_securely

_log = logging.getLogger("nognet.server")
_REJOIN_WITHIN_S = 60.0


def run_federation(grid: Grid, settings: RunSettings) -> None:
    """Run a study, or go on with it, to its end.

    Raises:
        FederationError: too few sites joined or stayed; checkpoint and figures are kept.
        ConfigError: a run is resumed with another study.
        WireError: a checkpoint is missing or damaged.
    """
    run, state = open_run(grid, settings)
    if run.study.rehearsal:
        _log.warning("REHEARSAL: sites may fail on purpose; this run's model is no result")
    session = _Session(run, RunValues(state, central=run.central))
    with session.recorded():
        session.join()
        while session.goes_on():
            session.play_round()
        session.finish()


class _Session:
    """The thin shell: it sends, waits and writes; `round_loop` decides."""

    def __init__(self, run: Run, values: RunValues) -> None:
        self.run = run
        self.values = values
        self._late: Late = {}
        self._hours = HoursAwaited(run.study)
        self._earlier_rounds = values.state.round_number
        self._earlier_seconds = state_seconds(values.state)

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Write how the run ended, whatever ends it."""
        status: RunStatus = "failed"
        try:
            yield
            self.write("completed")
            status = "completed"
        except (KeyboardInterrupt, SystemExit):
            status = "interrupted"
            raise
        except RoundFailedError as err:
            self._keep_strikes(err.faulty)
            raise
        except OSError as err:
            if err.errno not in DISK_TROUBLE:
                raise
            raise FederationError(
                f"{self.run.folder.path}: can't be written ({err.strerror}); the rounds that have "
                f"a checkpoint are safe; free some space and resume with --resume "
                f"{self.run.folder.path}",
                code="run-folder-not-written",
            ) from err
        finally:
            if status != "completed":
                self._write_end(status)

    def _write_end(self, status: RunStatus) -> None:
        """Write how it ended; where that can't be written, what ended it must still be told."""
        try:
            self.write(status)
        except OSError as err:
            _log.warning("%s: can't be written (%s)", self.run.folder.metrics, err.strerror)

    def write(self, status: RunStatus) -> None:
        """Write `metrics.json`."""
        seconds = self._earlier_seconds + time.monotonic() - self.run.clock_start
        document = metrics_document(
            self.run.study, self.run.identity, self.values, status=status, seconds=seconds
        )
        write_metrics(self.run.folder.metrics, document)

    def join(self) -> None:
        """Wait for the sites that the study wants before its first round."""
        settings, limits = self.run.settings, self.run.study.federation
        self._keep(self.values.state)
        gone = len(self.values.roster.barred)
        wanted = Wanted(
            sites=settings.closed_roster or max(limits.minimum_sites, limits.sites_awaited - gone),
            minimum=limits.minimum_sites,
            timeout_s=limits.join_timeout_s,
            closed_roster=settings.closed_roster,
        )
        self._wait(wanted)
        self.write("running")

    def goes_on(self) -> bool:
        """Whether there is another round, and central privacy lets it be played."""
        state = self.values.state
        return state.round_number < self.run.study.rounds and may_go_on(self.run.central, state)

    def play_round(self) -> None:
        """Train, aggregate, evaluate, keep."""
        run, state, started = self.run, self.values.state, time.monotonic()
        number = state.round_number + 1
        here = self._sites_here()
        absent = self._absent(here)
        secure = run.study.secure_aggregation
        trained = (
            ask_to_train(run, state, here, self._late, absent)
            if secure is None
            else ask_to_train_securely(run, state, here, secure, absent, charge=self._charge)
        )
        state = self.values.state  # charged, where the sites make the noise
        self._late = trained.late
        if self._hours.are_awaited(trained, round_number=number):
            return
        check_enough(
            run.study,
            trained.training,
            asked=trained.asked,
            round_number=number,
            folder=run.folder.path,
        )
        replies = trained.training.replies
        state, seen = noised(run.study, run.central, state, replies, folder=run.folder)
        state = after_training(run.study, state, seen)
        evaluation = ask_to_evaluate(
            run,
            here,
            state.weights,
            split="validation",
            round_number=number,
            busy=away_or_at_work(trained),
        )
        state, report = finish_round(
            run.study,
            state,
            training=trained.training,
            evaluation=evaluation,
            seconds=time.monotonic() - started,
        )
        save_checkpoint(run.folder, run.identity, state)
        if report.is_best:
            save_run_model(run, state, state.weights, report.value, report.round_number)
        self._keep(state)
        self.write("running")
        self._tell(report)

    def finish(self) -> None:
        """Evaluate the best weights on every site's test patients and leave them as the model."""
        state, best = self.values.state, self.values.state.best
        number = best.round_number if best else state.round_number
        weights = load_weights(self.run.folder, number, length=flat_length(self.run.spec))
        if best is None:
            _log.warning(
                "no round has a value of %s on validation; the last round's weights are the model",
                self.run.study.selection.metric,
            )
        _log.info("final test of round %d's weights", number)
        here = self._sites_here()
        test = ask_to_evaluate(self.run, here, weights, split="test", round_number=number)
        self.values = replace(self.values, final=Final(number, test))
        if self.run.study.personalisation.cross_site != "none":
            self.write("running")
            visited = let_models_visit(self.run, here, round_number=number)
            self.values = replace(self.values, final=Final(number, test, visited))
        save_run_model(self.run, state, weights, best.value if best else None, number)

    def _charge(self) -> None:
        """Charge a round whose noise the sites make; the charge stays whatever comes of it."""
        run = self.run
        self._keep(charged_for_sites(run.central, self.values.state, run.folder))

    def _wait(self, wanted: Wanted) -> None:
        roster = wait_for_sites(
            self.run.grid,
            self.run.join_task,
            self.values.roster,
            self.run.patience,
            wanted,
            busy=self._nodes_at_work,
        )
        self.values = replace(self.values, roster=roster)

    @property
    def _nodes_at_work(self) -> frozenset[int]:
        """The nodes whose update of an earlier round is still awaited."""
        return frozenset(int(item.message.metadata.dst_node_id) for item, _ in self._late.values())

    def _sites_here(self) -> dict[str, Member]:
        """Give the members that are online, with those that came (back); wait if too few."""
        run, limits = self.run, self.run.study.federation
        is_open = run.settings.closed_roster == 0
        patience = replace(run.patience, deadline_s=_REJOIN_WITHIN_S)
        busy = self._nodes_at_work
        roster = admit(
            run.grid, run.join_task, self.values.roster, patience, retry=is_open, busy=busy
        )
        self.values = replace(self.values, roster=roster)
        if len(present(run.grid, roster)) < limits.minimum_sites:
            minimum = limits.minimum_sites
            self._wait(Wanted(minimum, minimum, limits.join_timeout_s, run.settings.closed_roster))
        return present(run.grid, self.values.roster)

    def _absent(self, here: Mapping[str, Member]) -> dict[str, str]:
        """Give the members that are not asked in a round, and why."""
        roster = self.values.roster
        return {
            site: "no-answer" if roster.members[site].node_id in roster.unanswered else "offline"
            for site in roster.asked
            if site not in here
        }

    def _keep(self, state: ServerState) -> None:
        """Take the state on, and ask no more whom it bars."""
        roster = replace(self.values.roster, barred=barred_sites(self.run.study, state))
        self.values = replace(self.values, state=state, roster=roster)

    def _keep_strikes(self, faulty: frozenset[str]) -> None:
        """Hold a failed round against who was at fault; round and weights stay as they are."""
        if not faulty:
            return
        self._keep(struck(self.run.study, self.values.state, faulty))
        try:
            save_checkpoint(self.run.folder, self.run.identity, self.values.state)
        except FederationError as err:  # the round's own failure must still be told
            _log.warning("who was at fault is not kept: %s", err)

    def _tell(self, report: RoundReport) -> None:
        study = self.run.study
        played = report.round_number - self._earlier_rounds
        pace = (time.monotonic() - self.run.clock_start) / played
        left_s = pace * (study.rounds - report.round_number)
        value = "not defined" if report.value is None else f"{report.value:.4f}"
        _log.info(
            "round %d of %d: validation %s %s%s, %.1f s%s; %s",
            report.round_number,
            study.rounds,
            study.selection.metric,
            value,
            " (best so far)" if report.is_best else "",
            report.seconds,
            spent_text(self.run.central, self.values.state),
            _time_left(left_s) if report.round_number < study.rounds else "the last round",
        )


def _time_left(left_s: float) -> str:
    return f"about {left_s / 60:.0f} min left" if left_s >= 120 else f"about {left_s:.0f} s left"
