"""The run folder `runs/<name>/`: where everything of a run is, and how it ended."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import yaml

from nognet.config import StudyConfig, load_study
from nognet.errors import ConfigError, NognetError, WireError
from nognet.files import write_json_atomic, write_text_atomic
from nognet.report.metrics_file import end_run, read_metrics, write_metrics
from nognet.report.metrics_schema import RunStatus

_log = logging.getLogger("nognet.server")
_LITTLE_SPACE = 1_000_000


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run."""

    path: Path

    @property
    def study(self) -> Path:
        """The study as run."""
        return self.path / "study.yaml"

    @property
    def metrics(self) -> Path:
        """All figures, rewritten after every round."""
        return self.path / "metrics.json"

    @property
    def model(self) -> Path:
        """The best global model so far; the final one at the end."""
        return self.path / "model.nognet"

    @property
    def beginning(self) -> Path:
        """The weights that the run began with, where they were not drawn at random."""
        return self.path / "beginning.nognet"

    @property
    def report(self) -> Path:
        """The report for people."""
        return self.path / "report.html"

    @property
    def checkpoints(self) -> Path:
        """One checkpoint a round."""
        return self.path / "checkpoints"

    @property
    def logs(self) -> Path:
        """Logs of the run's processes."""
        return self.path / "logs"

    @property
    def charges(self) -> Path:
        """What central privacy has released, in this run and those that it goes on from."""
        return self.path / "central_privacy.json"

    @property
    def superseded(self) -> Path:
        """Which run goes on in place of this one, after a site withdrew."""
        return self.path / "superseded.json"

    @property
    def secure_round(self) -> Path:
        """Which sites the newest secure sum was to be of, and of which round."""
        return self.path / "secure-round.json"

    @property
    def outcome(self) -> Path:
        """How the ServerApp ended, for the process that started it."""
        return self.logs / "outcome.json"

    def checkpoint(self, round_number: int) -> Path:
        """Give the path of a round's checkpoint."""
        return self.checkpoints / f"round_{round_number:04d}.nognet"


@dataclass(frozen=True)
class Outcome:
    """How a run ended: exit code and message, as the command that started it shows them."""

    exit_code: int
    message: str


def new_run_folder(study: StudyConfig) -> RunFolder:
    """Make the folder of a new run: `runs/<name>`, or `runs/<name>-2` and so on if it exists.

    Raises:
        ConfigError: the folder can't be made.
    """
    try:
        study.runs.mkdir(parents=True, exist_ok=True)
        for number in range(1, 10_000):
            suffix = "" if number == 1 else f"-{number}"
            path = study.runs / f"{study.name}{suffix}"
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return RunFolder(path)
    except OSError as err:
        raise ConfigError(
            f"runs: {study.runs} can't be written ({type(err).__name__}); set `runs:` in the study "
            "to a folder that can"
        ) from err
    raise ConfigError(f"runs: {study.runs} holds 9999 runs named {study.name}; clear it out")


def write_study(folder: RunFolder, study: StudyConfig) -> None:
    """Write the study as run; it can be given to a command again.

    What is None is written too: where that is not the default (`max_update_ratio`), a resumed run
    would have another study.
    """
    values = study.model_dump(mode="json")
    write_text_atomic(folder.study, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def load_run_study(folder: RunFolder) -> StudyConfig:
    """Read the study as run.

    Raises:
        ConfigError: it is missing or faulty.
    """
    return load_study(folder.study)


def write_outcome(folder: RunFolder, outcome: Outcome) -> None:
    """Write how the run ended; where that can't be written, it is in the log alone."""
    value = {"exit_code": outcome.exit_code, "message": outcome.message}
    try:
        write_json_atomic(folder.outcome, value)
    except OSError as err:
        _log.error(
            "%s; and %s can't be written (%s)", outcome.message, folder.outcome, err.strerror
        )


def disk_hint(folder: RunFolder) -> str:
    """Say that the run folder's disk is full, where it is; with what to do."""
    free = shutil.disk_usage(folder.path).free
    if free >= _LITTLE_SPACE:
        return ""
    return f"the disk of {folder.path} is full ({free} bytes free): free some space first; "


def close_metrics(folder: RunFolder, status: RunStatus) -> None:
    """Note in `metrics.json` how a run ended whose process was killed before it could."""
    try:
        metrics = read_metrics(folder.metrics)
    except WireError:
        return  # no round was begun
    if metrics.status == "running":
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        closed = end_run(metrics, status, ended=ended, seconds=metrics.seconds or 0.0)
        try:
            write_metrics(folder.metrics, closed)
        except OSError as err:  # how the run ended is told anyway; this must not hide it
            _log.warning("%s: can't be written (%s)", folder.metrics, err.strerror)


def outcome_of(error: BaseException | None, interrupted_code: int) -> Outcome:
    """Turn what ended a run into an outcome."""
    if error is None:
        return Outcome(0, "completed")
    if isinstance(error, NognetError):
        return Outcome(error.exit_code, str(error))
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return Outcome(interrupted_code, "interrupted")
    return Outcome(1, f"{type(error).__name__}: {error}")


def read_outcome(folder: RunFolder) -> Outcome | None:
    """Read how the run ended; None while it runs, or if its process died."""
    try:
        value = json.loads(folder.outcome.read_text(encoding="utf-8"))
        return Outcome(int(value["exit_code"]), str(value["message"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
