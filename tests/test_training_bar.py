"""The bar on a real terminal (a pty), and its rows as values."""

from __future__ import annotations

import io
import math
import subprocess

import pytest
from rich.console import Console
from rich.progress import Progress

from nognet.progress import Pace, StepDone
from nognet.training_bar import TrainingBar, training_bar
from tests.builders.clock import Clock
from tests.builders.terminal import on_terminal, python

SCRIPT = """
import logging, math, sys, time
from nognet.console import say, set_up_logging
from nognet.progress import Pace, StepDone
from nognet.training_bar import training_bar

set_up_logging()
log = logging.getLogger("nognet.client")
with training_bar(["site_a"], Pace(2)) as bar:
    print("data")
    if bar is None:
        say("no bar")
    for number in (1, 2):
        for step in range(1, 5):
            done = StepDone("site_a", number, 2, step, 4, LOSS)
            if bar is not None:
                bar.tell(done)
            log.info("a line of step %d", step, extra={"step_done": done})
            time.sleep(0.12)
        say(f"round {number} is [done], " + "word " * 3)
        log.warning("a [log] line")
        FAULT
log.info("after")
"""


def script(*, loss: str = "0.25", fault: str = "pass") -> list[str]:
    return python(SCRIPT.replace("LOSS", loss).replace("FAULT", fault))


def test_words_and_logs_stand_above_the_bar_and_nothing_of_it_is_left() -> None:
    shown = on_terminal(script())
    assert shown.exit_code == 0, shown.raw
    assert shown.stdout == "data\n"
    assert [line.split("WARNING")[-1].strip() for line in shown.lines[:-1]] == [
        "round 1 is [done], word word word",
        "a [log] line",
        "round 2 is [done], word word word",
        "a [log] line",
    ]
    assert shown.lines[-1].endswith("INFO    after")
    assert "a line of step" not in shown.plain
    for words in ("round 1 of 2", "round 2 of 2", "step 4 of 4, loss 0.2500", "elapsed", "left"):
        assert words in shown.plain


def test_the_time_left_reaches_nothing() -> None:
    last = on_terminal(script()).plain.split("elapsed, ")[-1]
    assert last.startswith("0:00:00 left")


def test_an_error_wipes_the_bar_away_and_is_shown_whole() -> None:
    shown = on_terminal(script(fault="raise ValueError('a fault')"))
    assert shown.exit_code == 1
    assert shown.lines[-1] == "ValueError: a fault"
    assert not any("\N{BOX DRAWINGS HEAVY HORIZONTAL}" in line for line in shown.lines)
    assert shown.raw.rfind("\x1b[?25h") > shown.raw.rfind("\x1b[?25l")


def test_under_privacy_no_loss_is_shown() -> None:
    shown = on_terminal(script(loss="math.nan"))
    assert "step 4 of 4" in shown.plain
    assert "loss" not in shown.plain
    assert "nan" not in shown.plain


def test_without_colour_there_is_a_bar_in_none() -> None:
    coloured, plain = on_terminal(script()), on_terminal(script(), NO_COLOR="1")
    assert "\x1b[38;" in coloured.raw
    assert "\x1b[3" not in plain.raw
    assert "step 4 of 4" in plain.plain


def test_a_narrow_terminal_cuts_rows_off_and_breaks_none() -> None:
    shown = on_terminal(script(), columns=40)
    assert shown.exit_code == 0
    assert "a [log] line" in shown.lines[-2]
    assert not any("\N{BOX DRAWINGS HEAVY HORIZONTAL}" in line for line in shown.lines)


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_dumb_terminal_gets_lines(term: str) -> None:
    shown = on_terminal(script(), TERM=term)
    assert shown.lines[0] == "no bar"
    assert "\x1b" not in shown.raw
    assert "a line of step 3" in shown.plain


def test_a_pipe_gets_lines_whatever_is_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    done = subprocess.run(script(), capture_output=True, text=True, check=True)
    assert done.stderr.startswith("no bar\n")
    assert "\x1b" not in done.stderr
    assert "a line of step 3" in done.stderr


def test_pytest_has_no_terminal_here() -> None:
    with training_bar(["a"], Pace(1)) as bar:
        assert bar is None


@pytest.fixture
def drawn() -> Progress:
    console = Console(file=io.StringIO(), force_terminal=True)
    return Progress(console=console, auto_refresh=False)


def test_rounds_are_the_mean_of_the_sites_and_start_anew(drawn: Progress) -> None:
    clock = Clock()
    bar = TrainingBar(drawn, ["a", "b"], Pace(2, clock))
    run, a, b = drawn.tasks
    clock.now += 5.0
    bar.tell(StepDone("a", 1, 2, 2, 4, 0.5))
    assert (run.description, run.completed, run.fields["left_s"]) == ("round 1 of 2", 0.25, None)
    bar.tell(StepDone("b", 1, 2, 4, 4, math.nan))
    assert run.completed == 0.75
    assert (a.fields["words"], b.fields["words"]) == ("step 2 of 4, loss 0.5000", "step 4 of 4")
    clock.now += 5.0
    bar.tell(StepDone("b", 2, 2, 1, 4, 0.5))
    assert (run.completed, a.completed, a.fields["words"]) == (1.125, 0, "")
    assert run.fields["left_s"] == pytest.approx(5.0 / 0.875 * 0.875)
    bar.tell(StepDone("a", 1, 2, 4, 4, 0.5))  # late, of a round that is over
    bar.tell(StepDone("c", 2, 2, 4, 4, 0.5))  # nobody
    assert run.completed == 1.125
    bar.tell(StepDone("b", 2, 2, 4, 4, 0.5))
    bar.tell(StepDone("a", 2, 2, 4, 4, 0.5))
    assert (run.completed, run.fields["left_s"]) == (2.0, 0.0)


def test_a_long_name_is_cut(drawn: Progress) -> None:
    TrainingBar(drawn, ["x" * 40], Pace(1))
    assert len(drawn.tasks[1].description) == 20
