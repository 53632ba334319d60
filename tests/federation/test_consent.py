"""Runs with sites that decline: shown so, no fault of theirs, and the others go on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from nognet_server.rounds import hours
from nognet_server.runs.folder import RunFolder, new_run_folder, write_study

from nognet.errors import FederationError
from nognet.report.metrics_file import read_metrics
from tests.builders.federation import make_site, make_study, run, stub_work

NAMES = ("site_a", "site_b", "site_c")


def sites(folder: Path, consent_of_c: str) -> list[Path]:
    made = [make_site(folder, name) for name in NAMES]
    made[2].write_text(made[2].read_text() + f"consent: {consent_of_c}\n")
    return made


def closed_now() -> str:
    """Hours, in UTC, that begin an hour from now."""
    begin = datetime.now(UTC) + timedelta(hours=1)
    return f"{begin:%H:%M}-{begin + timedelta(hours=1):%H:%M}"


def test_a_site_declines_a_study_at_joining_and_the_others_go_on(tmp_path: Path) -> None:
    study = make_study(tmp_path, rounds=4)
    metrics = read_metrics(run(study, sites(tmp_path, "{max_rounds: 3}"), work=stub_work()).path)
    assert metrics.status == "completed"
    assert metrics.refused == {
        "site_c": "declined the study (consent-max-rounds); its own log says what it accepts"
    }
    assert sorted(metrics.sites) == ["site_a", "site_b"]


def test_a_site_declines_more_than_it_agreed_to_and_has_no_strike_for_it(tmp_path: Path) -> None:
    made = sites(tmp_path, "{max_rounds: 3}")
    study = make_study(tmp_path, rounds=2, federation={"quarantine_after": 1, "minimum_sites": 2})
    run(study, made, work=stub_work())
    again = read_metrics(run(study, made, work=stub_work()).path)
    parts = [entry.sites["site_c"] for entry in again.rounds]
    assert [(part.status, part.reason) for part in parts] == [
        ("ok", None),
        ("declined", "ConsentError:consent-max-rounds"),
    ]
    assert again.barred == {}
    assert again.status == "completed"
    assert again.final is not None
    assert "site_c" in again.final.sites  # evaluations have a count of their own


def test_only_permitted_figures_arrive(tmp_path: Path) -> None:
    study = make_study(tmp_path, rounds=1)
    made = sites(tmp_path, "{metrics: [growth_auc]}")
    metrics = read_metrics(run(study, made, work=stub_work()).path)
    (entry,) = metrics.rounds
    assert entry.sites["site_a"].validation["federated"]["dsc"].n_pairs == 2
    assert entry.sites["site_c"].validation["federated"]["dsc"].n_pairs == 0
    assert entry.sites["site_c"].validation["federated"]["growth_auc"].n_pairs == 2
    assert entry.sites["site_c"].train is not None
    assert entry.sites["site_c"].train.loss is None
    assert entry.validation["federated"]["dsc"].n_pairs == 4


def opened_folder(tmp_path: Path, consent: str) -> tuple[RunFolder, list[Path]]:
    study = make_study(tmp_path, rounds=1, federation={"minimum_sites": 3})
    folder = new_run_folder(study)
    write_study(folder, study)
    return folder, sites(tmp_path, consent)


def test_a_round_that_lacks_a_site_outside_its_hours_is_played_when_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, made = opened_folder(tmp_path, f"{{hours: '{closed_now()}', timezone: UTC}}")
    open_text = made[2].read_text().split("consent:")[0]
    pauses: list[float] = []

    def night_comes(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            made[2].write_text(open_text)

    monkeypatch.setattr(hours, "pause", night_comes)
    study = make_study(tmp_path, rounds=1, federation={"minimum_sites": 3})
    run(study, made, work=stub_work(), folder=folder)
    (entry,) = read_metrics(folder.path).rounds
    assert {name: part.status for name, part in entry.sites.items()} == dict.fromkeys(NAMES, "ok")
    assert pauses == [hours.ASK_AGAIN_S] * 2


def test_a_round_fails_by_name_and_code_where_no_hour_helps(tmp_path: Path) -> None:
    folder, made = opened_folder(tmp_path, "{max_rounds: 1}")
    study = make_study(tmp_path, rounds=1, federation={"minimum_sites": 3})
    run(study, made, work=stub_work(), folder=folder)
    other = new_run_folder(study)
    write_study(other, study)
    with pytest.raises(FederationError, match=r"site_c: declined the study \(consent-max-rounds"):
        run(study, made, work=stub_work(), folder=other)
