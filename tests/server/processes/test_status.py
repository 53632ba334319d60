"""What a run does now, from its process to the files that other programs read."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from nognet_server.phases import LOGGER, tell_phase
from nognet_server.processes.status import (
    LIVE,
    StatusFiles,
    read_state,
    tell_phases,
)

from nognet.supervision.events import EventPipe, EventWriter
from tests.builders.federation import make_site, make_study, run, stub_work


@pytest.fixture
def followed() -> Iterator[EventPipe]:
    """What a ServerApp's process tells its supervisor."""
    pipe, logger = EventPipe(), logging.getLogger(LOGGER)
    tell_phases(EventWriter(pipe.write_end))
    yield pipe
    pipe.close()
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


def test_states_go_from_the_serverapp_to_both_files(tmp_path: Path, followed: EventPipe) -> None:
    state, run = tmp_path / "state", tmp_path / "runs" / "demo"
    files = StatusFiles((state, run), run, 5)
    seen = []
    tell_phase("waiting", text="1 of 2 sites are here (a)")
    tell_phase("training", round_number=2)
    tell_phase("evaluating", round_number=2)
    tell_phase("testing", round_number=1)
    for event in followed.drain():
        files.on_event(event)
        found = read_state(run)
        assert read_state(state) == found
        assert found is not None
        seen.append((found.state, found.round, found.rounds, found.text))
    assert seen == [
        ("waiting", None, 5, "1 of 2 sites are here (a)"),
        ("training", 2, 5, "round 2 of 5: training"),
        ("evaluating", 2, 5, "round 2 of 5: evaluating"),
        ("testing", 1, 5, "final test of round 1"),
    ]
    assert (found.pid, found.exit_code) == (os.getpid(), None)


def test_a_run_tells_its_phases_whatever_its_lines_say(
    tmp_path: Path, followed: EventPipe, caplog: pytest.LogCaptureFixture
) -> None:
    sites = [make_site(tmp_path, name) for name in ("site_a", "site_b")]
    with caplog.at_level(logging.CRITICAL, logger="nognet.server"):  # no line for people at all
        run(make_study(tmp_path), sites, work=stub_work())
    told = [(e.values["state"], e.values.get("round")) for e in followed.drain()]
    rounds = [(state, number) for number in (1, 2) for state in ("training", "evaluating")]
    assert [phase for phase in told if phase[0] != "waiting"] == [*rounds, ("testing", 2)]


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
