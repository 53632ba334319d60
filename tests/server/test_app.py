"""The ServerApp in a process of its own: whatever ends it, how it ended is written down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from nognet_server.runs.folder import Outcome, RunFolder, read_outcome

from tests.builders.federation import make_study

# Sites never come: the app waits. Flower's handler stands before ours, as in a deployed run, and
# like Flower's it may never come back: by then all must be written.
_PROGRAM = """
import json, os, signal, sys
from flwr.app import Context, RecordDict
from nognet_server.app import app
from tests.builders.fake_grid import FakeGrid

def flowers(number, _frame):
    os._exit(40 + number)

signal.signal(signal.SIGTERM, flowers)
signal.signal(signal.SIGINT, flowers)
config = json.loads(sys.argv[1])
app(grid=FakeGrid({}), context=Context(1, 0, {}, RecordDict(), config))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_outcome_and_metrics_before_flower_hears_of_it(
    tmp_path: Path, number: signal.Signals
) -> None:
    study = make_study(tmp_path)
    folder = RunFolder(tmp_path / "run")
    config = {"study-json": study.for_sites(), "run-folder": str(folder.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, json.dumps(config)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        deadline = time.monotonic() + 60
        while not folder.checkpoint(0).is_file() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(number)
        assert process.wait(10) == 40 + number
    finally:
        process.kill()
    assert read_outcome(folder) == Outcome(130, "interrupted")
    assert json.loads(folder.metrics.read_text(encoding="utf-8"))["status"] == "interrupted"
