"""Lines as hospitals have them: slow ones, and proxies that cut a connection on which all is quiet.

A training of half an hour, which is what the second test is about, is run with

    python -m pytest tests/federation/test_networks.py -k quiet --epoch-s 1800
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from flwr.common.constant import (
    HEARTBEAT_BASE_MULTIPLIER,
    HEARTBEAT_CALL_TIMEOUT,
    HEARTBEAT_DEFAULT_INTERVAL,
    HEARTBEAT_RANDOM_RANGE,
)
from flwr.supercore.constant import OBJECT_PUSH_SESSION_TTL_SECONDS
from nognet_client.processes.link import LEASE_S, RUN_LOOK_S
from nognet_server.runs.folder import RunFolder

from nognet.config import StudyConfig
from nognet.fit.weights import weight_spec
from nognet.report.metrics_file import read_metrics
from nognet.wire.flat import flat_length
from tests.builders.deployment import Deployment, deployment, tiny_study
from tests.builders.link import Link, linked

pytestmark = pytest.mark.federation
SITE = "hospital_a"
TEN_MBIT = 10e6 / 8  # bytes a second
LARGE = {"width": 56, "embedding_width": 64, "attention": False}
USUAL_IDLE_CUT_S = 60.0
"""Proxies and firewalls that cut at all cut after one minute to an hour."""


@contextmanager
def behind(link: dict[str, float], folder: Path, **study: Any) -> Iterator[tuple[Deployment, Link]]:
    """Deploy one site that dials through a link."""
    limits = {"minimum_sites": 1, "join_timeout_s": 120, "round_timeout_s": 3600}
    with (
        deployment(folder, (SITE,), rounds=1, federation=limits, **study) as built,
        linked(built.port, **link) as between,
    ):
        path = built.site_file(SITE)
        server = yaml.safe_load(path.read_text("utf-8"))["server"]
        address = {**server, "address": f"127.0.0.1:{between.port}"}
        built.edit(path, server=address, rehearsal=bool(study.get("rehearsal")))
        yield built, between


def assert_one_quiet_round(built: Deployment, output: str) -> None:
    """Trained once, counted, and nothing was lost on the way."""
    metrics = read_metrics(RunFolder(built.runs / "tiny").path)
    assert metrics.status == "completed"
    assert metrics.rounds[0].sites[SITE].status == "ok"
    assert len(re.findall("training, round 1: done", output)) == 1
    until_the_end = output[: output.rindex("evaluating, round 1: done")]  # then the server is gone
    assert "lost the coordinator" not in until_the_end
    assert "kept reply" not in output


@pytest.mark.slow
def test_weights_of_millions_of_numbers_cross_a_line_of_ten_megabits(tmp_path: Path) -> None:
    study = StudyConfig.model_validate(tiny_study(network=LARGE))
    size = 4 * flat_length(weight_spec(study.network))
    training = {"steps_per_round": 1, "batch_size": 1, "warmup_steps": 0}
    link = {"bytes_per_s": TEN_MBIT}
    with behind(link, tmp_path, network=LARGE, training=training) as (built, between):
        server, client = built.server(), built.client(SITE)
        assert server.wait(500) == 0, server.output
        assert_one_quiet_round(built, client.output)
        # the weights went down to train, to validate and to test, and came up once
        assert 3 * size < between.down_bytes < 3.3 * size
        assert size < between.up_bytes < 1.3 * size
        took = float(re.findall(r"round 1, train: \S+ done after ([\d.]+) s", server.output)[0])
        assert took > 2 * size / TEN_MBIT
        for state in ("connected to", "waiting for a round", "training, round 1", "evaluating"):
            assert state in client.output


@pytest.mark.slow
def test_a_training_on_whose_line_all_is_quiet_outlives_what_cuts_it(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    epoch_s = float(request.config.getoption("--epoch-s"))
    idle_s = min(epoch_s / 7, USUAL_IDLE_CUT_S)  # 20 s: cut after 3 s; half an hour: after 60 s
    with behind({"idle_s": idle_s}, tmp_path, rehearsal=True) as (built, _):
        server = built.server()
        client = built.client(SITE, "--chaos", f"slow@1+{epoch_s:.0f}s")
        client.wait_for("training, round 1", 120)
        began = time.monotonic()
        client.wait_for("training, round 1: done", epoch_s + 120)
        assert time.monotonic() - began > epoch_s
        assert server.wait(120) == 0, server.output
        assert_one_quiet_round(built, client.output)
        assert "REHEARSAL: hospital_a fails on purpose: slow" in server.output


def test_something_passes_more_often_than_any_of_them_cuts() -> None:
    """What keeps a line awake while a site trains, from the constants themselves."""
    longest = (HEARTBEAT_DEFAULT_INTERVAL - HEARTBEAT_CALL_TIMEOUT) * (
        HEARTBEAT_BASE_MULTIPLIER + max(HEARTBEAT_RANDOM_RANGE)
    )
    assert longest <= 22.5
    assert longest < LEASE_S
    assert longest < USUAL_IDLE_CUT_S
    # the site asks whether its run goes on before a connection is old enough to be closed
    assert RUN_LOOK_S < httpx.Limits().keepalive_expiry == 5.0  # type: ignore[operator]  # a number
    # a chunk of 5 MiB, two at once, has so long: the slowest line that weights can come up
    assert 8 * 2 * 5 * 2**20 / OBJECT_PUSH_SESSION_TTL_SECONDS < 0.5e6
