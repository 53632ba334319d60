"""`nognet train` on a terminal and in a log: how far it is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from nognet.commands.train import TELL_EVERY_S, _Recorder
from nognet.commands.train_record import LocalRun
from nognet.fit import alone
from nognet.fit.pretraining.beginning import first_weights
from tests.builders.clock import Clock
from tests.builders.federation import make_site, make_study, opened
from tests.builders.terminal import on_terminal

COMMAND = "from nognet.commands.main import main; main()"


def on_tty(folder: Path, *, privacy: bool = False) -> Any:
    changes = {"privacy": {"noise_multiplier": 4.0, "delta": 0.01}} if privacy else {}
    study = folder / "study.yaml"
    values = make_study(folder, **changes).model_dump(mode="json", exclude_none=True)
    study.write_text(yaml.safe_dump(values))
    site = make_site(folder, "site_a")
    files = ("--site", str(site), "--study", str(study), "--out", str(folder / "out"))
    return on_terminal([sys.executable, "-c", COMMAND, "train", *files])


@pytest.mark.parametrize("privacy", [False, True])
def test_a_terminal_gets_a_bar_and_a_line_a_round(tmp_path: Path, privacy: bool) -> None:
    shown = on_tty(tmp_path, privacy=privacy)
    assert shown.exit_code == 0, shown.plain
    assert "step 2 of 2" in shown.plain
    assert ("step 2 of 2, loss " in shown.plain) is not privacy
    assert ("loss" in shown.plain) is not privacy
    told = [line for line in shown.lines if line.startswith("round ")]
    assert [line[:12] for line in told] == ["round 1 of 2", "round 2 of 2"]
    assert told[1].endswith("; the last round")
    assert shown.lines[-1] == f"model and figures written to {tmp_path / 'out'}"
    assert not any("elapsed" in line for line in shown.lines)


def test_a_log_gets_lines_with_the_time_left_by_the_pace_of_all_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four steps a round of 3 s each, the first of 40 s; a round's validation takes 4 s."""
    clock, usual = Clock(), alone.train_round

    def slow_round(*arguments: Any, progress: Any, **named: Any) -> Any:
        def step_done(step: int, steps: int, _: float) -> None:
            clock.now += 40.0 if step == named["round_number"] == 1 else 3.0
            progress(step, steps, 0.5)

        done = usual(*arguments, progress=step_done, **named)
        clock.now += 4.0
        return done

    monkeypatch.setattr(alone, "train_round", slow_round)
    training = {"steps_per_round": 4, "batch_size": 2, "warmup_steps": 0}
    study = make_study(tmp_path, rounds=2, training=training)
    site, prepared = opened(make_site(tmp_path, "site_a"))
    run = LocalRun(study, site, prepared, "now", first_weights(study))
    _Recorder(tmp_path / "out", run, clock(), clock).train()
    lines = [line for line in capsys.readouterr().err.splitlines() if ", step " in line]
    assert TELL_EVERY_S == 5.0
    assert lines == [
        "round 1 of 2, step 1 of 4, loss 0.5000; about 5 min left",
        "round 1 of 2, step 3 of 4, loss 0.5000; about 15 s left",
        "round 2 of 2, step 2 of 4, loss 0.5000; about 8 s left",
        "round 2 of 2, step 4 of 4, loss 0.5000; about 0 s left",
    ]
