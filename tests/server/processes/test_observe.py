"""A server looked at from outside, without one running."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from nognet_server.processes.observe import (
    Place,
    find_place,
    is_healthy,
    log_lines,
    observe,
    readable,
    stop,
)
from nognet_server.processes.status import StatusFiles
from nognet_server.runs.folder import RunFolder

from nognet.errors import ConfigError, NognetError
from nognet.supervision.lock import exclusive


@pytest.fixture
def study(tmp_path: Path) -> Path:
    keys = ("ca", "certificate", "key", "sites")
    server = dict.fromkeys(keys, "pki") | {"listen": "127.0.0.1:9443", "control_port": 1}
    server["state"] = str(tmp_path / "state")
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({"name": "tiny", "server": server}), encoding="utf-8")
    return path


def started(place: Place, tmp_path: Path) -> RunFolder:
    """Leave what a server that was killed in a round leaves."""
    folder = RunFolder(tmp_path / "runs" / "tiny")
    files = StatusFiles((place.server.state, folder.path), folder.path, 5)
    files.change("training", number=3)
    return folder


@pytest.fixture
def signalled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect whom `stop` signals: in these tests it would be this very process."""
    pids: list[int] = []
    monkeypatch.setattr("os.kill", lambda pid, _: pids.append(pid))
    return pids


def test_before_the_first_run_there_is_nothing_to_tell(study: Path) -> None:
    place = find_place(study, None)
    assert observe(place)["state"] == "none"
    assert not is_healthy(place)
    with pytest.raises(NognetError, match="no run was started"):
        place.run_folder()
    with pytest.raises(NognetError, match="no nognet-server runs"):
        stop(place, 1.0)


def test_a_server_that_is_gone_in_a_round_has_died(study: Path, tmp_path: Path) -> None:
    place = find_place(study, None)
    folder = started(place, tmp_path)
    seen = observe(place)
    assert seen["state"] == "died"
    assert "round 3 of 5: training; go on with nognet-server --resume" in seen["text"]
    with exclusive(place.server.state, "nognet-server"):  # its pid is this process's
        assert observe(place)["state"] == "training"
        assert not is_healthy(place)  # nothing listens on the control port
    assert place.run_folder() == folder


def test_who_is_asked_no_more_is_told_with_why(study: Path, tmp_path: Path) -> None:
    place = find_place(study, None)
    folder = started(place, tmp_path)
    figures = {"rounds": [{}, {}], "sites": {"a": {}, "b": {}}, "barred": {"b": "quarantined"}}
    folder.metrics.write_text(json.dumps(figures), encoding="utf-8")
    seen = observe(place)
    assert seen["sites"] == {"a": "unknown", "b": "quarantined"}
    assert seen["rounds_done"] == 2


def test_a_run_is_found_by_its_folder(study: Path, tmp_path: Path) -> None:
    folder = started(find_place(study, None), tmp_path)
    folder.study.write_text(study.read_text(encoding="utf-8"), encoding="utf-8")
    assert find_place(None, folder.path).run_folder() == folder


def two_runs(study: Path, tmp_path: Path) -> tuple[Place, Place]:
    """Leave a completed run, and another of the same study that is trained."""
    state = find_place(study, None).server.state
    for name, said in (("tiny", "completed"), ("tiny-2", "training")):
        folder = RunFolder(tmp_path / "runs" / name)
        StatusFiles((state, folder.path), folder.path, 5).change(said)
        folder.study.write_text(study.read_text(encoding="utf-8"), encoding="utf-8")
    old, served = (find_place(None, tmp_path / "runs" / name) for name in ("tiny", "tiny-2"))
    return old, served


def test_a_server_at_another_run_is_not_stopped(
    study: Path, tmp_path: Path, signalled: list[int]
) -> None:
    old, served = two_runs(study, tmp_path)
    with exclusive(old.server.state, "nognet-server"):
        with pytest.raises(NognetError, match=rf"/runs/tiny: .* is at {served.run}: ") as caught:
            stop(old, 0.0)
        assert caught.value.code == "not-running"
        assert signalled == []
        for place in (served, find_place(study, None)):
            with pytest.raises(NognetError, match="has not ended"):  # nothing was sent really
                stop(place, 0.0)
        assert signalled == [os.getpid()] * 2


def test_a_server_that_has_not_said_its_run_is_stopped_by_its_study_alone(
    study: Path, tmp_path: Path, signalled: list[int]
) -> None:
    _, served = two_runs(study, tmp_path)
    (served.server.state / "status.json").unlink()
    with exclusive(served.server.state, "nognet-server"):
        with pytest.raises(NognetError, match="has not said yet at which run") as caught:
            stop(served, 0.0)
        assert (caught.value.code, signalled) == ("not-running", [])
        with pytest.raises(NognetError, match="has not ended"):
            stop(find_place(study, None), 0.0)
    assert signalled == [os.getpid()]


def test_only_the_run_that_is_served_is_healthy(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nognet_server.processes.observe.answers", lambda *_: True)
    old, served = two_runs(study, tmp_path)
    assert not is_healthy(served)
    with exclusive(old.server.state, "nognet-server"):
        assert [is_healthy(place) for place in (old, served)] == [False, True]
        assert is_healthy(find_place(study, None))
        assert observe(old)["state"] == "completed"
        assert observe(served)["state"] == "training"


def test_a_study_without_a_server_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("name: tiny\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="it was not run by nognet-server"):
        find_place(path, None)


def test_the_last_lines_of_a_log_are_given(study: Path, tmp_path: Path) -> None:
    place = find_place(study, None)
    folder = started(place, tmp_path)
    with pytest.raises(NognetError, match=r"server\.log: no such log yet"):
        list(log_lines(place, "server", 10, follow=False))
    folder.logs.mkdir()
    lines = [json.dumps({"time": f"t{n}", "level": "info", "message": f"m{n}"}) for n in range(5)]
    (folder.logs / "server.log").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert list(log_lines(place, "server", 2, follow=False)) == lines[3:]
    assert list(log_lines(place, "server", 2, follow=True)) == lines[3:]  # ends: none runs
    assert readable(lines[4]) == "t4 INFO    m4"
    assert readable("not JSON") == "not JSON"
