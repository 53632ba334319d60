"""A training's bar on a terminal: the run with its time left, and below it each site's step."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from nognet.progress import STEP_DONE, Clock, Pace, StepDone

_BAR_WIDTH = 24
_LONGEST_NAME = 20
_EVERY_S = 5.0
StepsTold = Callable[[int, int, float], None]
"""Called after each step with the step, the number of steps and the loss."""


@contextlib.contextmanager
def training_bar(sites: Sequence[str], pace: Pace) -> Iterator[TrainingBar | None]:
    """Draw a bar on stderr for a `with` block; None where stderr is no terminal, or a dumb one.

    What is said or logged meanwhile stands above the bar, and log lines that tell of steps are left
    out. At the end, on errors too, the bar is wiped away.

    Args:
        sites: Who trains.
        pace: Of the study's rounds; the bar tells it of every step.
    """
    console = Console(stderr=True, highlight=False)
    if not (sys.stderr.isatty() and console.is_terminal) or console.is_dumb_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(_BAR_WIDTH),
        _WordsColumn(pace),
    )
    plain = sys.stderr
    with Progress(
        *columns, console=console, transient=True, refresh_per_second=4, redirect_stdout=False
    ) as progress:
        console.show_cursor(show=True)  # whoever is killed would leave a terminal without one
        with _logs_above(plain):
            yield TrainingBar(progress, sites, pace)


@contextlib.contextmanager
def _logs_above(plain: object) -> Iterator[None]:
    """Send the log lines that go to stderr through rich, but for those that tell of steps."""

    def tells_no_step(record: logging.LogRecord) -> bool:
        return not hasattr(record, STEP_DONE)

    handlers = [
        handler
        for handler in logging.getLogger("nognet").handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is plain
    ]
    for handler in handlers:
        handler.setStream(sys.stderr)
        handler.addFilter(tells_no_step)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(tells_no_step)
            handler.setStream(plain)


@contextlib.contextmanager
def steps_told(title: str, say: Callable[[str], None], *, bar: bool = True) -> Iterator[StepsTold]:
    """Tell of a training without rounds for a `with` block: a bar on a terminal, elsewhere lines.

    Args:
        title: What is done.
        say: Takes a line every few seconds, where there is no terminal.
        bar: Whether a terminal gets a bar; one appears even where no step is told.
    """
    console = Console(stderr=True, highlight=False)
    if not bar or not (sys.stderr.isatty() and console.is_terminal) or console.is_dumb_terminal:
        yield StepLines(title, say)
        return
    columns = (
        TextColumn(title, markup=False),
        BarColumn(_BAR_WIDTH),
        TextColumn("{task.fields[words]}"),
    )
    plain = sys.stderr
    with Progress(
        *columns, console=console, transient=True, refresh_per_second=4, redirect_stdout=False
    ) as progress:
        console.show_cursor(show=True)
        task = progress.add_task(title, total=1, words="")

        def tell(step: int, steps: int, loss: float) -> None:
            words = pace_words(pace, step, steps, loss)
            progress.update(task, completed=step, total=steps, words=words)

        pace = Pace(1.0)
        with _logs_above(plain):
            yield tell


class StepLines:
    """Says how a training without rounds goes on: its first step, then every few seconds."""

    def __init__(
        self, title: str, say: Callable[[str], None], clock: Clock = time.monotonic
    ) -> None:
        """Start the clock.

        Args:
            title: What is done.
            say: Takes the lines.
            clock: Seconds.
        """
        self._title, self._say, self._clock = title, say, clock
        self._pace, self._said = Pace(1.0, clock), -_EVERY_S

    def __call__(self, step: int, steps: int, loss: float) -> None:
        """Take a step into account."""
        words = pace_words(self._pace, step, steps, loss)
        if self._clock() - self._said >= _EVERY_S or step == steps:
            self._said = self._clock()
            self._say(f"{self._title}: {words}")


def pace_words(pace: Pace, step: int, steps: int, loss: float) -> str:
    """Say where a training stands and how long it still takes."""
    left = f"{_as_clock(pace.left_s(step / steps))} left" if step < steps else "done"
    return f"step {step} of {steps}, loss {loss:.4f}; {left}"


class TrainingBar:
    """The rows of the bar. Sites may tell of their steps from threads of their own."""

    def __init__(self, progress: Progress, sites: Sequence[str], pace: Pace) -> None:
        """Add the rows.

        Args:
            progress: Draws them.
            sites: Who trains.
            pace: Of the rounds.
        """
        self._progress, self._pace = progress, pace
        self._lock = threading.Lock()
        self._rounds, self._round = round(pace.total), 0
        self._shares = dict.fromkeys(sites, 0.0)
        self._run = progress.add_task("starting", total=pace.total, is_run=True, left_s=None)
        self._rows: dict[str, TaskID] = {
            site: progress.add_task(_shortened(site), total=1, is_run=False, words="")
            for site in sites
        }

    def tell(self, done: StepDone) -> None:
        """Take a step into account; one of a round that is over already counts no more."""
        with self._lock:
            if done.round_number < self._round or done.site not in self._rows:
                return
            is_first = self._round == 0  # slow: it tells nothing of the others
            if done.round_number > self._round:
                self._begin(done.round_number)
            self._shares[done.site] = done.step / done.steps
            mean = sum(self._shares.values()) / len(self._shares)
            rounds_done = done.round_number - 1 + mean
            left_s = self._pace.left_s(rounds_done)
            self._progress.update(
                self._run, completed=rounds_done, left_s=None if is_first else left_s
            )
            self._progress.update(
                self._rows[done.site], completed=done.step, total=done.steps, words=done.words
            )

    def _begin(self, round_number: int) -> None:
        self._round = round_number
        self._shares = dict.fromkeys(self._shares, 0.0)
        self._progress.update(self._run, description=f"round {round_number} of {self._rounds}")
        for row in self._rows.values():
            self._progress.update(row, completed=0, words="")


class _WordsColumn(ProgressColumn):
    """Behind the run's bar the time elapsed and left, behind a site's its step and loss."""

    def __init__(self, pace: Pace) -> None:
        super().__init__(Column(no_wrap=True))
        self._pace = pace

    def render(self, task: Task) -> Text:
        if not task.fields["is_run"]:
            return Text(task.fields["words"])
        elapsed, left_s = f"{_as_clock(self._pace.elapsed_s)} elapsed", task.fields["left_s"]
        return Text(elapsed if left_s is None else f"{elapsed}, {_as_clock(left_s)} left")


def _as_clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
