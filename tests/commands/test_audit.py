"""`nognet audit`: what an officer sees, and how a changed record is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from nognet.audit.log import AuditLog, egress_folder
from nognet.commands.main import app
from nognet.errors import EgressError
from tests.builders.federation import make_site


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return make_site(tmp_path, "site_a")


def log_of(site: Path) -> AuditLog:
    log = AuditLog(egress_folder(site.parent / "state"))
    log.append({"kind": "join", "run": "ab" * 16, "bytes": 900, "decision": "allowed"})
    log.append(
        {
            "kind": "train", "run": "ab" * 16, "round": 1, "bytes": 4000, "update_norm": 2.5,
            "counts": {"n-patients": 12}, "epsilon": 1.25, "delta": 1e-3, "withheld": ["a", "b"],
        }
    )  # fmt: skip
    log.append({"kind": "train-error", "round": 2, "code": "TrainingError:no-pairs"})
    return log


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["audit", *words])


def test_an_officer_reads_a_line_a_message(site: Path) -> None:
    log_of(site)
    lines = run("show", "--site", str(site)).stdout.splitlines()
    assert len(lines) == 3
    assert "round 1, train: 4000 bytes, an update of length 2.5, n-patients 12" in lines[1]
    assert "epsilon 1.250 spent (delta 0.001), 2 figures withheld, run abababab" in lines[1]
    assert "only the code TrainingError:no-pairs" in lines[2]


def test_programs_read_json(site: Path) -> None:
    log = log_of(site)
    shown = [
        json.loads(line)
        for line in run("show", "--site", str(site), "--json").stdout.split("\n")
        if line
    ]
    assert [entry["kind"] for entry in shown] == ["join", "train", "train-error"]
    verified = json.loads(run("verify", "--site", str(site), "--json").stdout)
    assert verified["entries"] == 3
    assert verified["faults"] == []
    head = log.head()
    assert head is not None
    assert verified["head"] == head.hash == run("head", "--site", str(site)).stdout.strip()


def test_an_edited_line_ends_with_exit_code_13(site: Path) -> None:
    log = log_of(site)
    log.path.write_bytes(log.path.read_bytes().replace(b'"bytes":4000', b'"bytes":40'))
    done = run("verify", "--site", str(site))
    assert isinstance(done.exception, EgressError)
    assert done.exception.exit_code == 13
    assert "line 2: its hash is not that of its contents: edited" in done.stdout


def test_an_anchor_finds_a_log_that_was_written_anew(site: Path) -> None:
    log = log_of(site)
    anchor = run("head", "--site", str(site)).stdout.strip()
    assert run("verify", "--site", str(site), "--anchor", anchor).exception is None
    log.path.unlink()
    log.head_path.unlink()
    log_of(site)
    assert run("verify", "--site", str(site)).exception is None
    done = run("verify", "--site", str(site), "--anchor", anchor)
    assert isinstance(done.exception, EgressError)


def test_before_anything_left_there_is_nothing_to_show(site: Path) -> None:
    for command in ("show", "verify", "head"):
        assert run(command, "--site", str(site)).exception is None
