"""Who dies, and when: every process of a deployment, killed in every phase of a round.

Two hospitals over TLS, two rounds; the link of one is slow, so that its transfers last. After each
fault the run finishes, or stops cleanly and is resumed; no site trains a round to its end twice;
no contribution is lost but that of a task killed while it fetched the weights or trained; and where
none was, the weights are those of an undisturbed run, bit for bit.

What a fault cost in seconds is measured within its own run, so that a machine that is busy now and
idle an hour later does not matter: round 1, in which it struck, against round 2, in which nothing
did; less the same difference of the undisturbed run. Of a fault while the server waits for sites:
from the start of the last site to round 1, against the same of the undisturbed run.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import yaml
from nognet_server.runs.checkpoints import load_weights
from nognet_server.runs.folder import RunFolder

from nognet.config import StudyConfig
from nognet.fit.weights import weight_spec
from nognet.report.metrics_file import read_metrics
from nognet.report.metrics_schema import RunMetrics
from nognet.wire.flat import flat_length
from tests.builders.deployment import (
    Deployment,
    Running,
    deployment,
    descendants,
    kill,
    pid_running,
    tiny_study,
    wait_until_gone,
)
from tests.builders.link import Link, linked

pytestmark = [pytest.mark.federation, pytest.mark.slow]
ROUNDS = 2
VICTIM, OTHER = "hospital_a", "hospital_b"
TRANSFER = 60_000  # of about 220 000 bytes of weights
SLOW = 150_000.0  # bytes a second
TRAINING = {"steps_per_round": 12, "batch_size": 2, "warmup_steps": 0}
WITHIN_S = 240.0
VICTIMS = (
    "client app",
    "SuperNode",
    "SuperLink",
    "ServerApp",
    "server supervisor",
    "client supervisor",
)
PHASES = ("waiting", "mid-download", "mid-training", "mid-upload", "mid-aggregation")
LOSE_ONE = {("client app", "mid-download"), ("client app", "mid-training")}
LOST = {
    f"{VICTIM} in round 1 ({reason})"
    for reason in ("client-app-crashed", "TrainingError:process-killed-9")
}
"""What a run may lose to these faults; to all others nothing."""


@dataclass
class Scene:
    """A deployment under way."""

    built: Deployment
    link: Link
    server: Running
    runs: Path
    clients: dict[str, Running] = field(default_factory=dict)
    earlier: list[Running] = field(default_factory=list)
    all_sites_at: dt.datetime | None = None

    def start_other(self) -> None:
        """Start the second site's client; then both are there."""
        self.clients[OTHER] = self.built.client(OTHER)
        self.all_sites_at = dt.datetime.now(dt.UTC)

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.runs / "tiny")

    def restart_client(self) -> None:
        self.earlier.append(self.clients[VICTIM])
        self.clients[VICTIM] = self.built.client(VICTIM)

    def resume(self) -> None:
        self.earlier.append(self.server)
        self.server = self.built.server("--resume", str(self.folder.path))

    def client_output(self, name: str) -> str:
        logs = [r.log for r in (*self.earlier, self.clients[name])]
        return "".join(log.read_text("utf-8") for log in logs if log.name.startswith(name))


@dataclass(frozen=True)
class Pace:
    """Seconds of a run, by the log of its server.

    Attributes:
        joining: From the start of the last site's client to round 1.
        first_round: From the first sending of round 1 to its end, resumed or not.
        second_round: The same of round 2.
    """

    joining: float
    first_round: float
    second_round: float

    def longer_than(self, calm: Pace, phase: str) -> float:
        """Seconds that a fault in a phase cost, beside the run without one."""
        if phase == "waiting":
            return self.joining - calm.joining
        here, there = (p.first_round - p.second_round for p in (self, calm))
        return here - there


@dataclass(frozen=True)
class Undisturbed:
    """The same deployment without a fault."""

    weights: np.ndarray
    pace: Pace


@contextlib.contextmanager
def scene(folder: Path, *, runs: Path | None = None) -> Iterator[Scene]:
    """Start the server; the victim's client dials through the link."""
    limits = {"minimum_sites": 1, "expected_sites": 2, "join_timeout_s": 120, "quorum": 0.5}
    with (
        deployment(
            folder, (VICTIM, OTHER), rounds=ROUNDS, training=TRAINING, federation=limits
        ) as built,
        linked(built.port, bytes_per_s=SLOW) as link,
    ):
        path = built.site_file(VICTIM)
        address = yaml.safe_load(path.read_text("utf-8"))["server"]
        built.edit(path, server={**address, "address": f"127.0.0.1:{link.port}"})
        if runs is not None:
            built.edit(built.study, runs=str(runs))
        yield Scene(built, link, built.server(), runs or built.runs)


def weights_after(folder: RunFolder, round_number: int) -> np.ndarray:
    study = StudyConfig.model_validate(tiny_study())
    length = flat_length(weight_spec(study.network))
    return load_weights(folder, round_number, length=length)


def pace_of(going: Scene) -> Pace:
    """Read the run's pace off its server's log, which a resumed server goes on with."""
    lines = (going.folder.logs / "server.log").read_text("utf-8").splitlines()
    entries = [json.loads(line) for line in lines if line]

    def times(words: str) -> list[dt.datetime]:
        return [dt.datetime.fromisoformat(e["time"]) for e in entries if words in e["message"]]

    rounds = [
        (
            times(f"round {n} of {ROUNDS}: training at")[0],
            times(f"round {n} of {ROUNDS}: valid")[-1],
        )
        for n in (1, 2)
    ]
    assert going.all_sites_at is not None
    joining = (rounds[0][0] - going.all_sites_at).total_seconds()
    first, second = ((end - start).total_seconds() for start, end in rounds)
    return Pace(joining, first, second)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    with scene(tmp_path_factory.mktemp("undisturbed")) as going:
        reach(going, "waiting")
        going.start_other()
        assert going.server.wait(WITHIN_S) == 0, going.server.output
        return Undisturbed(weights_after(going.folder, ROUNDS), pace_of(going))


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[list[tuple[str, ...]]]:
    """What each fault did; written where ``--fault-table`` says."""
    rows: list[tuple[str, ...]] = []
    yield rows
    target = request.config.getoption("--fault-table")
    if target:
        head = ("victim", "phase", "what happened", "left out", "same bits", "seconds longer")
        lines = [head, ("---",) * len(head), *rows]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        Path(target).write_text(text + "\n", encoding="utf-8")


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("victim", VICTIMS)
def test_a_process_killed_in_a_phase(
    victim: str,
    phase: str,
    undisturbed: Undisturbed,
    table: list[tuple[str, ...]],
    tmp_path: Path,
) -> None:
    with scene(tmp_path) as going:
        reach(going, phase)
        strike(going, victim)
        if phase == "waiting":
            going.start_other()
        what = recovered(going)
        check(going, undisturbed, may_lose=LOST if (victim, phase) in LOSE_ONE else frozenset())
        left_out = lost_contributions(read_metrics(going.folder.path))
        same = np.array_equal(weights_after(going.folder, ROUNDS), undisturbed.weights)
        table.append(
            (
                victim,
                phase,
                what,
                ", ".join(left_out) or "nobody",
                "yes" if same else "no",
                f"{pace_of(going).longer_than(undisturbed.pace, phase):.1f}",
            )
        )


@pytest.mark.parametrize("seconds", [5.0, 90.0])
def test_a_link_cut_in_the_middle_of_training(
    seconds: float, undisturbed: Undisturbed, table: list[tuple[str, ...]], tmp_path: Path
) -> None:
    with scene(tmp_path) as going:
        reach(going, "mid-training")
        going.link.cut()
        time.sleep(seconds)
        going.link.mend()
        assert going.server.wait(WITHIN_S) == 0, going.server.output
        check(going, undisturbed)
        what = (f"link, cut for {seconds:.0f} s", "mid-training", "finished", "nobody", "yes")
        table.append((*what, longer(going, undisturbed)))


def test_a_full_disk_at_a_site_costs_nothing(
    undisturbed: Undisturbed, table: list[tuple[str, ...]], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk") as disk, scene(tmp_path / "scene") as going:
        going.built.edit(going.built.site_file(VICTIM), state=str(disk))
        reach(going, "mid-training")
        fill(disk)
        assert going.server.wait(WITHIN_S) == 0, going.server.output
        check(going, undisturbed)
        assert "the reply can't be kept" in going.clients[VICTIM].output
        what = ("site's disk full", "mid-training", "finished", "nobody", "yes")
        table.append((*what, longer(going, undisturbed)))


def test_a_full_disk_at_the_coordinator_ends_the_run_cleanly(
    undisturbed: Undisturbed, table: list[tuple[str, ...]], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk") as disk, scene(tmp_path / "scene", runs=disk) as going:
        reach(going, "mid-training")
        filler = fill(disk)
        assert going.server.wait(WITHIN_S) == 9, going.server.output
        assert re.search("free some space (first|and resume)", going.server.output)
        assert f"--resume {going.folder.path}" in going.server.output
        assert "Traceback" not in going.server.output
        filler.unlink()
        going.resume()
        assert going.server.wait(WITHIN_S) == 0, going.server.output
        check(going, undisturbed)
        what = ("coordinator's disk full", "mid-training", "stopped cleanly, resumed, finished")
        table.append((*what, "nobody", "yes", longer(going, undisturbed)))


def longer(going: Scene, undisturbed: Undisturbed) -> str:
    return f"{pace_of(going).longer_than(undisturbed.pace, 'mid-training'):.1f}"


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a disk of 8 MB; needs root."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "nognet-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("a small disk can't be mounted here (root alone can)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Fill a disk to its last byte; give the file that does it."""
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(65_536))
    return filler


def reach(going: Scene, phase: str) -> None:
    """Start what the phase needs, and wait until it has begun."""
    going.clients[VICTIM] = going.built.client(VICTIM)
    if phase == "waiting":
        going.server.wait_for("1 of 2 sites are here", 120)
        return
    going.start_other()
    going.server.wait_for("round 1 of 2: training at", 120)
    if phase == "mid-download":
        going.link.wait_for_bytes(down=TRANSFER)
        return
    going.clients[VICTIM].wait_for("training, round 1", 120)
    if phase == "mid-training":
        time.sleep(0.3)
    elif phase == "mid-upload":
        going.link.wait_for_bytes(up=TRANSFER)
    else:  # the last update has arrived; the new weights are neither evaluated nor kept
        going.server.wait_for(r"train: \S+ done after [\d.]+ s\n", 120)


def strike(going: Scene, victim: str) -> None:
    """Kill the victim with SIGKILL."""
    client, server = going.clients[VICTIM], going.server
    if victim in {"client app", "ServerApp"}:
        module = (
            "client.processes.worker" if victim == "client app" else "server.processes.executor"
        )
        host = pid_running(
            f"nognet_{module}", (client if victim == "client app" else server).family()
        )
        inner = [pid for pid in descendants(host) if pid != host]
        kill(inner[0] if inner else host)
    elif victim == "SuperNode":
        kill(pid_running("nognet_client.processes.supernode", client.family()))
    elif victim == "SuperLink":
        kill(pid_running("nognet_server.processes.superlink", server.family()))
    else:
        running = server if victim == "server supervisor" else client
        family = running.family()
        kill(running.process.pid)
        running.process.wait()
        assert wait_until_gone(family, 10) == [], "orphans"


def recovered(going: Scene) -> str:
    """Do what a service manager does: start what ended again. Return what happened."""
    what = "finished"
    if going.clients[VICTIM].process.poll() is not None:
        what = "client started again, finished"
        going.restart_client()
    code = going.server.wait(WITHIN_S)
    if code != 0:
        assert code in {-9, 9}, going.server.output
        if code == 9:
            assert f"--resume {going.folder.path}" in going.server.output
        what = "killed, resumed, finished" if code == -9 else "stopped cleanly, resumed, finished"
        going.resume()
        assert going.server.wait(WITHIN_S) == 0, going.server.output
    return what


def check(
    going: Scene, undisturbed: Undisturbed, *, may_lose: AbstractSet[str] = frozenset()
) -> None:
    """Hold the run against what has to be true after any fault, but for what it may lose."""
    metrics = read_metrics(going.folder.path)
    assert metrics.status == "completed"
    assert [entry.round for entry in metrics.rounds] == list(range(1, ROUNDS + 1))
    assert metrics.final is not None
    for name in (VICTIM, OTHER):
        output = going.client_output(name)
        assert "Traceback" not in output
        for number in range(1, ROUNDS + 1):
            ended = re.findall(rf"training, round {number}: done", output)
            kept = re.findall(rf"round {number}: answered from the kept reply", output)
            assert len(ended) - len(kept) <= 1, output
    lost = lost_contributions(metrics)
    assert set(lost) <= may_lose
    if not lost:
        assert np.array_equal(weights_after(going.folder, ROUNDS), undisturbed.weights)


def lost_contributions(metrics: RunMetrics) -> list[str]:
    return [
        f"{site} in round {entry.round} ({part.reason})"
        for entry in metrics.rounds
        for site, part in sorted(entry.sites.items())
        if part.status != "ok"
    ]
