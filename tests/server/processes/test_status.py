"""What a run does now, read off the lines that people read."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
from nognet_server.processes.status import (
    LIVE,
    PhaseTeller,
    StatusFiles,
    phase_event,
    read_state,
)

from nognet.supervision.events import EventPipe, EventWriter


@pytest.mark.parametrize(
    ("line", "state"),
    [
        ("waiting for sites: 1 of 2 sites are here (a); at most 60 s more", "waiting"),
        ("round 2 of 5: training at hospital_a, hospital_b", "training"),
        ("round 2, train: hospital_a done after 1.0 s; waiting for hospital_b", None),
        ("round 2, train: hospital_b done after 2.0 s", "evaluating"),
        ("round 2, evaluate on validation: hospital_b done after 2.0 s", None),
        ("round 2 of 5: validation dsc 0.8 (best so far), 3.0 s; about 9 s left", None),
        ("final test of round 4's weights", "testing"),
        ("hospital_a joined: 3 training, 2 validation, 2 test pairs", None),
    ],
)
def test_a_line_of_the_log_tells_the_state(line: str, state: str | None) -> None:
    found = phase_event(line)
    assert (found["state"] if found else None) == state


def test_states_go_from_the_serverapp_to_both_files(tmp_path: Path) -> None:
    pipe = EventPipe()
    state, run = tmp_path / "state", tmp_path / "runs" / "demo"
    files = StatusFiles((state, run), run, 5)
    logger = logging.getLogger("nognet.test_status")
    logger.setLevel(logging.INFO)
    logger.addHandler(PhaseTeller(EventWriter(pipe.write_end)))
    for line in ("round 2 of 5: training at a", "round 2, train: a done after 1.0 s"):
        logger.info("%s", line)
        for event in pipe.drain():
            files.on_event(event)
        assert read_state(state) == read_state(run)
    pipe.close()
    logger.handlers.clear()
    found = read_state(run)
    assert found is not None
    assert (found.state, found.round, found.rounds) == ("evaluating", 2, 5)
    assert found.text == "round 2 of 5: evaluating"
    assert (found.pid, found.exit_code) == (os.getpid(), None)


def test_the_end_is_told_with_its_exit_code(tmp_path: Path) -> None:
    files = StatusFiles((tmp_path,), tmp_path, 3)
    files.change("failed", "too few sites", exit_code=9)
    found = read_state(tmp_path)
    assert found is not None
    assert (found.state, found.text, found.exit_code) == ("failed", "too few sites", 9)
    assert found.state not in LIVE


def test_a_file_that_cant_be_read_tells_nothing(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None
    (tmp_path / "status.json").write_text(json.dumps({"state": "x"}), encoding="utf-8")
    assert read_state(tmp_path) is None
