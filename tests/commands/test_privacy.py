"""`nognet privacy` from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dp_accounting
import pytest
from dp_accounting import pld
from typer.testing import CliRunner

from nognet.audit.log import AuditLog
from nognet.commands.main import app, main
from nognet.privacy.accounting import NoisedSteps, PrivacyHistory
from nognet.privacy.ledger import Ledger
from tests.builders.ledgers import ROUND, charged, data_set

PLAN = ["privacy", "plan", "--patients", "80", "--batch", "8", "--steps", "300", "--delta", "1e-3"]


def test_the_plan_gives_epsilon_of_the_stated_example() -> None:
    result = CliRunner().invoke(app, [*PLAN, "--noise", "1", "--json"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["epsilon"] == pytest.approx(9.06, abs=0.02)
    assert figures["epsilon"] < figures["epsilon_rdp"]
    assert figures["sample_rate"] == pytest.approx(0.1)
    assert figures["empty_batch_share"] == pytest.approx(0.9**80)


def test_the_noise_planned_for_a_target_stays_below_it() -> None:
    result = CliRunner().invoke(app, [*PLAN, "--target-epsilon", "4", "--json"])
    figures = json.loads(result.stdout)
    assert 3.9 < figures["epsilon"] <= 4
    again = CliRunner().invoke(app, [*PLAN, "--noise", str(figures["noise_multiplier"])])
    assert f"epsilon {figures['epsilon']:.3f}" in again.stdout


@pytest.mark.parametrize("extra", [[], ["--noise", "1", "--target-epsilon", "4"]])
def test_noise_and_target_exclude_each_other(extra: list[str]) -> None:
    result = CliRunner().invoke(app, [*PLAN, *extra])
    assert result.exit_code == 2
    assert "give one of" in result.output


@pytest.mark.parametrize("arguments", [["--delta", "0.1", "--noise", "1"], ["--noise", "0"]])
def test_an_unsound_plan_ends_with_exit_code_10_and_a_message(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["nognet", *PLAN, *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    assert ended.value.code == 10
    assert captured.out == ""
    assert "expected" in captured.err or "must be below" in captured.err


def test_an_epsilon_that_promises_nothing_is_said_so() -> None:
    result = CliRunner().invoke(app, [*PLAN, "--noise", "0.5"])
    assert "hardly anything" in result.stderr
    assert "hardly anything" not in result.stdout


def test_the_plan_agrees_with_dp_accounting() -> None:
    event = dp_accounting.SelfComposedDpEvent(
        dp_accounting.PoissonSampledDpEvent(0.1, dp_accounting.GaussianDpEvent(2.0)), 300
    )
    tight = pld.PLDAccountant().compose(event).get_epsilon(1e-3)
    figures = json.loads(CliRunner().invoke(app, [*PLAN, "--noise", "2", "--json"]).stdout)
    assert tight <= figures["epsilon"] <= tight + 0.02


def test_the_noise_for_a_target_agrees_with_dp_accountings_calibration() -> None:
    def event(noise: float) -> dp_accounting.DpEvent:
        step = dp_accounting.PoissonSampledDpEvent(0.1, dp_accounting.GaussianDpEvent(noise))
        return dp_accounting.SelfComposedDpEvent(step, 300)

    theirs = dp_accounting.calibrate_dp_mechanism(
        lambda: pld.PLDAccountant(value_discretization_interval=1e-3),
        event,
        target_epsilon=1.0,
        target_delta=1e-3,
        bracket_interval=dp_accounting.ExplicitBracketInterval(3.0, 8.0),
        tol=1e-3,
    )
    result = CliRunner().invoke(app, [*PLAN, "--target-epsilon", "1", "--json"])
    ours = json.loads(result.stdout)["noise_multiplier"]
    assert theirs - 2e-3 <= ours <= theirs * 1.02  # never less, and hardly more


def test_a_site_where_nothing_was_charged_is_told_so_and_gets_no_ledger(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["privacy", "ledger", "--site", str(site_file(tmp_path))])
    assert result.exit_code == 0, result.output
    assert "Nothing was ever charged" in result.stdout
    assert not (tmp_path / "state").exists()


def test_the_ledger_shows_what_was_charged_and_what_it_comes_to(tmp_path: Path) -> None:
    site, folder = site_file(tmp_path, max_epsilon=8.0), tmp_path / "state" / "privacy"
    for number in (1, 2):
        charge = charged(folder, data_set("anna", "bert"), number=number)
        Ledger(folder).confirm(charge, steps=ROUND.steps)
    charged(folder, data_set("bert", "carl"), number=3)
    spent = PrivacyHistory((NoisedSteps(2.0, 0.1, 15),)).epsilon(1e-3)  # bert's
    shown = CliRunner().invoke(app, ["privacy", "ledger", "--site", str(site)]).stdout
    rows = [line for line in shown.splitlines() if " lungs " in line]
    assert ["1-2" in rows[0], "taken" in rows[0]] == [True, True]
    assert ["  3  " in rows[1], "planned" in rows[1]] == [True, True]
    assert len(rows) == 2
    assert f"epsilon {spent:.3f} at delta 0.001; limit 8, {8 - spent:.3f} left" in shown
    assert "charged most, of 3" in shown
    assert not any(name in shown for name in ("anna", "bert", "carl"))
    each = CliRunner().invoke(app, ["privacy", "ledger", "--site", str(site), "--each"]).stdout
    assert sum(" lungs " in line for line in each.splitlines()) == 3


def test_the_ledger_as_json_has_every_entry_and_the_balance_at_a_delta_of_choice(
    tmp_path: Path,
) -> None:
    site = site_file(tmp_path)
    charged(tmp_path / "state" / "privacy", data_set("anna"), number=1)
    command = ["privacy", "ledger", "--site", str(site), "--delta", "1e-5", "--json"]
    document = json.loads(CliRunner().invoke(app, command).stdout)
    [entry], [balance] = document["entries"], document["balance"]
    assert (entry["study"], entry["round"], entry["patients"]) == ("lungs", 1, 1)
    assert (entry["noise_multiplier"], entry["sample_rate"], entry["steps"]) == (2.0, 0.1, 5)
    assert balance["delta"] == 1e-5
    assert balance["epsilon"] == PrivacyHistory((ROUND,)).epsilon(1e-5) > entry["epsilon_after"]
    assert balance["max_epsilon"] is None


def event(number: int, **more: Any) -> dict[str, Any]:
    """A line of the audit log: an update of a round."""
    sha256 = f"{number:064x}"
    return {"kind": "train", "run": "ab" * 16, "round": number, "payload_sha256": sha256, **more}


def test_updates_that_left_without_noise_are_counted_first(tmp_path: Path) -> None:
    """One that left twice once; no error, figure or noised update."""
    site, log = site_file(tmp_path), AuditLog(tmp_path / "state" / "egress")
    log.path.parent.mkdir(parents=True)
    open_ones = (event(1), event(1), event(2), event(2, kind="share"))
    others = (
        *(event(3, kind=kind) for kind in ("train-error", "evaluate-test")),
        event(3, epsilon=0.0),
        event(3, noise={"sites": 3}),
    )
    for line in (*open_ones, *others):
        log.append(line)
    command = ["privacy", "ledger", "--site", str(site)]
    shown = CliRunner().invoke(app, command).stdout.split("\n", 1)[1]
    assert shown.startswith("3 updates left without noise: no epsilon holds for their\npatients")
    charged(tmp_path / "state" / "privacy", data_set("anna"))
    shown = CliRunner().invoke(app, command).stdout
    assert "3 updates left without noise" in shown
    assert "concludes from the noised updates alone" in shown
    document = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert document["left_without_noise"] == 3
    log.path.write_bytes(log.path.read_bytes() + b"{}\n")
    assert CliRunner().invoke(app, command).exit_code != 0


def test_where_all_was_noised_the_balance_is_of_all_that_was_sent(tmp_path: Path) -> None:
    site = site_file(tmp_path)
    charged(tmp_path / "state" / "privacy", data_set("anna"))
    shown = CliRunner().invoke(app, ["privacy", "ledger", "--site", str(site)]).stdout
    assert "without noise" not in shown
    assert "concludes from all that was sent" in shown


def test_a_damaged_ledger_ends_with_exit_code_10(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site, ledger = site_file(tmp_path), Ledger(tmp_path / "state" / "privacy")
    charged(ledger.folder, data_set("anna"))
    ledger.path.write_bytes(b"nothing")
    monkeypatch.setattr("sys.argv", ["nognet", "privacy", "ledger", "--site", str(site)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 10
    assert "restore it from a backup" in capsys.readouterr().err


def site_file(folder: Path, *, max_epsilon: float | None = None) -> Path:
    path = folder / "site.yaml"
    privacy = {"noise_multiplier": 2.0, "delta": 1e-3, "max_epsilon": max_epsilon}
    path.write_text(json.dumps({"name": "here", "studies": "studies.csv", "privacy": privacy}))
    return path
