"""`nognet train`: train at one site alone, without a federation."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nognet.console import emit, say
from nognet.progress import Clock, Pace, StepDone

if TYPE_CHECKING:
    from nognet.commands.train_record import LocalRun
    from nognet.config import SiteConfig, StudyConfig
    from nognet.data.store import PreparedSite
    from nognet.fit.alone import BestRound, LocalRound
    from nognet.fit.pretraining.beginning import Beginning
    from nognet.report.metrics_schema import RunMetrics, RunStatus

TELL_EVERY_S = 5.0


def train(
    site: Annotated[Path, typer.Option(help="The hospital's site.yaml.")],
    study: Annotated[Path, typer.Option(help="The study.yaml whose rounds are trained.")],
    out: Annotated[Path, typer.Option(help="Folder of the model and its figures.")],
    force: Annotated[
        bool, typer.Option("--force", help="Replace a model that is already there.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print metrics.json.")] = False,
) -> None:
    """Train one site alone with the rounds of a study, and test beside both baselines.

    Writes model.nognet (best round by validation), last.nognet and metrics.json after every round:
    Ctrl-C loses the round at work only. Nothing leaves the site.
    """
    from nognet.commands.train_record import LAST_NAME, MODEL_NAME, check_folder_is_free
    from nognet.config import load_site, load_study
    from nognet.fit.alone import check_same_roi
    from nognet.report.metrics_file import METRICS_FILE_NAME

    names = (MODEL_NAME, LAST_NAME, METRICS_FILE_NAME)
    site_config, study_config = load_site(site), load_study(study)
    check_folder_is_free(out, names, force=force)
    prepared = _prepare(site_config)
    check_same_roi(study_config, prepared)
    for name in names:
        (out / name).unlink(missing_ok=True)
    metrics = _train(out, study_config, site_config, prepared)
    if as_json:
        emit(json.dumps(metrics.model_dump(mode="json"), indent=2, allow_nan=False))
    else:
        _print_results(metrics)
    say(f"model and figures written to {out}")


def _prepare(site: SiteConfig) -> PreparedSite:
    from nognet.commands.prepare import progress_to_stderr
    from nognet.data.site.prepare import prepare_site, prepared_or_prepare

    with progress_to_stderr(f"prepare {site.name}") as progress:
        if site.studies.exists():
            return prepare_site(site, progress=progress)
        return prepared_or_prepare(site, progress=progress)  # pairs written without files


def _train(out: Path, study: StudyConfig, site: SiteConfig, prepared: PreparedSite) -> RunMetrics:
    """Train all rounds; whatever ends it early leaves the rounds done and says so."""
    from nognet.commands.train_record import LocalRun, utc_now
    from nognet.errors import NognetError
    from nognet.fit.alone import evaluate_local
    from nognet.report.metrics_file import METRICS_FILE_NAME, write_metrics

    begun = _beginning(study, site)
    run, started = LocalRun(study, site, prepared, utc_now(), begun), time.monotonic()
    recorder = _Recorder(out, run, started)
    try:
        best = recorder.train()
        say(f"test of round {best.number}'s weights")
        test = evaluate_local(study, site, prepared, best.weights, split="test")
    except (NognetError, KeyboardInterrupt) as err:
        status: RunStatus = "failed" if isinstance(err, NognetError) else "interrupted"
        done = recorder.run
        write_metrics(out / METRICS_FILE_NAME, done.metrics(status, time.monotonic() - started))
        if done.rounds:
            say(f"{status} after {len(done.rounds)} of {study.rounds} rounds; {out} has their best")
        raise
    finished = recorder.run.with_test(best.number, test)
    metrics = finished.metrics("completed", time.monotonic() - started)
    write_metrics(out / METRICS_FILE_NAME, metrics)
    return metrics


def _beginning(study: StudyConfig, site: SiteConfig) -> Beginning:
    """Begin as the federation would; what is pre-trained is kept in the site's state folder."""
    from nognet.fit.pretraining.beginning import beginning
    from nognet.training_bar import steps_told

    bar = study.init.name == "phantom"
    with steps_told("pre-training on phantoms", say, bar=bar) as told:
        return beginning(study, site.state / "pretrained", told)


class _Recorder:
    """Trains round by round, tells how it goes, and keeps every finished round on disk."""

    def __init__(
        self,
        out: Path,
        run: LocalRun,
        started: float,
        clock: Clock = time.monotonic,
    ) -> None:
        self.out, self.run, self.started, self.clock = out, run, started, clock
        self.told, self.pace = started, Pace(run.study.rounds, clock)

    def train(self) -> BestRound:
        """Train all rounds, beside a bar where there is a terminal; give the best."""
        from nognet.training_bar import training_bar

        with training_bar([self.run.site.name], self.pace) as bar:
            best = self._train(self._tell_step if bar is None else bar.tell)
        if best is None:
            raise RuntimeError("a study has at least one round")
        return best

    def _train(self, told: Callable[[StepDone], None]) -> BestRound | None:
        from nognet.commands.train_record import save_round
        from nognet.fit.alone import train_alone

        run = self.run

        def step_done(number: int, step: int, steps: int, loss: float) -> None:
            told(StepDone(run.site.name, number, run.study.rounds, step, steps, loss))

        best: BestRound | None = None
        first = run.begun.weights
        for done in train_alone(run.study, run.site, run.prepared, first=first, progress=step_done):
            self.run = self.run.with_round(done)
            save_round(self.out, self.run, done, self.clock() - self.started)
            self._tell_round(done)
            best = done.best
        return best

    def _tell_step(self, done: StepDone) -> None:
        left = self._time_left(done.round_number - 1 + done.step / done.steps)
        if self.clock() - self.told < TELL_EVERY_S:
            return
        self.told = self.clock()
        say(f"round {done.round_number} of {done.rounds}, {done.words}; {left}")

    def _tell_round(self, done: LocalRound) -> None:
        self.told = self.clock()
        rounds, metric = self.run.study.rounds, self.run.study.selection.metric
        loss = done.outcome.mean_loss
        shown = "" if loss is None else f", mean loss {loss:.4f}"
        if done.outcome.epsilon is not None:
            shown += f", epsilon {done.outcome.epsilon:.3f}"
        value = "not defined" if done.value is None else f"{done.value:.4f}"
        best = " (best so far)" if done.is_best else ""
        left = self._after_round(done)
        say(f"round {done.number} of {rounds}{shown}, validation {metric} {value}{best}; {left}")

    def _after_round(self, done: LocalRound) -> str:
        from nognet.fit.alone import is_early_stop

        study = self.run.study
        if is_early_stop(study, done):
            since = done.number - done.best.number
            return f"stopped early: nothing better than round {done.best.number} in {since} more"
        if done.number >= study.rounds:
            return "the last round"
        return self._time_left(done.number)

    def _time_left(self, rounds_done: float) -> str:
        left_s = self.pace.left_s(rounds_done)
        return (
            f"about {left_s / 60:.0f} min left" if left_s >= 120 else f"about {left_s:.0f} s left"
        )


def _print_results(metrics: RunMetrics) -> None:
    import sys

    from rich.console import Console

    from nognet.report.tables import PLAIN_WIDTH, cohort_lines, results_table

    if metrics.final is None or not any(entry.test for entry in metrics.final.sites.values()):
        say("no test pairs at this site; nothing can be said of the model's quality")
        return
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)
    console.print(results_table(metrics, width=console.width))
    for line in ("Test cohort:", *cohort_lines(metrics)):
        console.print(line)
    console.print("Research use only; not a medical device.")
