"""Charges are committed, add up by patient over data sets, runs and processes, and stay."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

import nognet
from nognet.errors import PrivacyBudgetError, PrivacyError
from nognet.privacy.accounting import NoisedSteps, PrivacyHistory
from nognet.privacy.calibration import noise_for_epsilon
from nognet.privacy.ledger import Ledger
from nognet.privacy.ledger_balance import Spent, spent_with_round
from nognet.privacy.ledger_entries import histories_of_all
from tests.builders.ledgers import ROUND, SETTINGS, charged, data_set, purpose

DELTA = SETTINGS.delta
DATA = data_set("anna", "bert", "carl")


def epsilon(*steps: NoisedSteps) -> float:
    return PrivacyHistory(steps).epsilon(DELTA)


def test_an_entry_says_who_what_when_and_what_it_cost(tmp_path: Path) -> None:
    charge = charged(tmp_path, DATA, number=3)
    [entry] = Ledger(tmp_path).entries()
    assert (entry.number, entry.data, entry.purpose) == (charge.number, DATA, purpose(3))
    assert (entry.steps, entry.delta, entry.state) == (ROUND, DELTA, "planned")
    assert (entry.epsilon_before, entry.epsilon_after) == (0.0, epsilon(ROUND))
    assert entry.time_utc.endswith("+00:00")
    assert entry.software == nognet.__version__


def test_files_are_for_the_sites_eyes_only(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "privacy"
    folder.mkdir(parents=True, mode=0o755)
    charged(folder, DATA)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_rounds_over_restarts_cost_what_one_long_run_costs(tmp_path: Path) -> None:
    for number in range(1, 5):  # each opens the file anew, as a new process does
        charge = charged(tmp_path, DATA, number=number)
    assert charge.cost.epsilon_after == epsilon(NoisedSteps(2.0, 0.1, 20))
    befores = [entry.epsilon_before for entry in Ledger(tmp_path).entries()]
    afters = [entry.epsilon_after for entry in Ledger(tmp_path).entries()]
    assert befores == [0.0, *afters[:-1]]


def test_patients_that_two_data_sets_have_in_common_are_charged_for_both(tmp_path: Path) -> None:
    other = NoisedSteps(3.0, 0.2, 9)
    charged(tmp_path, data_set("anna", "bert"))
    apart = charged(tmp_path, data_set("dora", "emil"), other)
    assert (apart.cost.epsilon_before, apart.cost.epsilon_after) == (0.0, epsilon(other))
    third = charged(tmp_path, data_set("bert", "fred"), other)  # bert was charged before
    assert third.cost.epsilon_before == epsilon(ROUND)
    assert third.cost.epsilon_after == epsilon(ROUND, other)
    bridge = charged(tmp_path, data_set("bert", "dora"))
    assert bridge.cost.epsilon_before == epsilon(ROUND, other)
    assert bridge.cost.epsilon_after == epsilon(ROUND, other, ROUND)


def test_a_site_prepared_again_with_more_pairs_starts_from_what_was_spent(tmp_path: Path) -> None:
    charged(tmp_path, data_set("anna", "bert", fingerprint="before"))
    after = charged(tmp_path, data_set("anna", "bert", fingerprint="after"))
    assert after.cost.epsilon_before == epsilon(ROUND)
    assert len({entry.data for entry in Ledger(tmp_path).entries()}) == 2


def test_under_another_key_nobody_knows_who_is_who_and_all_are_charged(tmp_path: Path) -> None:
    charged(tmp_path, data_set("anna", key="lost"))
    after = charged(tmp_path, data_set("7f3a", key="new"))
    assert after.cost.epsilon_before == epsilon(ROUND)
    [history] = histories_of_all(Ledger(tmp_path).entries())
    assert history.epsilon(DELTA) == after.cost.epsilon_after


def test_a_charge_over_the_limit_is_refused_and_leaves_no_trace(tmp_path: Path) -> None:
    limit = epsilon(ROUND) * 1.01
    charged(tmp_path, DATA, max_epsilon=limit)
    with pytest.raises(PrivacyBudgetError, match="refused before it trains"):
        charged(tmp_path, data_set("carl", "dora"), number=2, max_epsilon=limit)
    charged(tmp_path, data_set("dora"), number=2, max_epsilon=limit)  # carl was the one
    assert [entry.data.patients for entry in Ledger(tmp_path).entries()] == [
        DATA.patients,
        {"dora"},
    ]


def test_what_a_run_was_charged_depends_on_no_other_run(tmp_path: Path) -> None:
    ledger, other = Ledger(tmp_path), NoisedSteps(3.0, 0.2, 9)
    ledger.charge(SETTINGS, DATA, purpose(run="another"), other)
    first = ledger.charge(SETTINGS, data_set("anna"), purpose(), ROUND)
    assert (first.of_run, first.cost.epsilon_before) == (epsilon(ROUND), epsilon(other))
    # prepared anew with nobody of those: the run has spent both all the same
    second = ledger.charge(SETTINGS, data_set("dora"), purpose(2), ROUND)
    assert (second.of_run, second.cost.epsilon_before) == (epsilon(ROUND, ROUND), 0.0)
    for charge in (first, second):
        ledger.confirm(charge, steps=ROUND.steps)
    found = [
        spent_with_round(ledger.entries(), purpose().run_token, number, DELTA) for number in (1, 2)
    ]
    assert found == [(Spent(c.of_run, c.cost.epsilon_after),) for c in (first, second)]


def test_a_run_asked_for_over_and_over_is_refused_at_its_target(tmp_path: Path) -> None:
    """Without a limit, and whichever round it calls it; a new run has a target of its own."""
    noise = noise_for_epsilon(1.0, rate=0.1, steps=20, delta=DELTA)
    settings = replace(SETTINGS, target_epsilon=1.0)
    ledger, planned = Ledger(tmp_path), NoisedSteps(noise, 0.1, 5)
    for _ in range(4):
        ledger.charge(settings, DATA, purpose(1), planned)
    for number in (1, 2):
        with pytest.raises(PrivacyBudgetError, match="part in the run ends here") as caught:
            ledger.charge(settings, DATA, purpose(number), planned)
        assert caught.value.code == "budget-target"
    assert len(ledger.entries()) == 4
    ledger.charge(settings, DATA, purpose(1, run="another"), planned)


def test_a_delta_too_large_for_so_few_patients_is_refused_and_costs_nothing(tmp_path: Path) -> None:
    many = data_set(*map(str, range(500)))
    with pytest.raises(PrivacyError, match="must be below"):
        charged(tmp_path, many)
    assert Ledger(tmp_path).entries() == ()


def test_a_confirmed_charge_is_taken_and_only_for_the_steps_that_it_charges(tmp_path: Path) -> None:
    charge, ledger = charged(tmp_path, DATA), Ledger(tmp_path)
    with pytest.raises(PrivacyError, match="doesn't charge 6 steps"):
        ledger.confirm(charge, steps=6)
    assert ledger.entries()[0].state == "planned"
    ledger.confirm(charge, steps=5)
    assert ledger.entries()[0].state == "taken"


def test_looking_at_a_ledger_that_is_not_there_makes_none(tmp_path: Path) -> None:
    assert Ledger(tmp_path / "privacy").entries() == ()
    assert not (tmp_path / "privacy").exists()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM entries",
        "DELETE FROM patients",
        "UPDATE entries SET steps = 1",
        "UPDATE entries SET noise_multiplier = 9, state = 'taken'",
        "UPDATE entries SET state = 'earlier'",
    ],
)
def test_rows_stay_as_they_were_written(tmp_path: Path, statement: str) -> None:
    charged(tmp_path, DATA)
    ledger = Ledger(tmp_path)
    before = ledger.entries()
    other = sqlite3.connect(ledger.path)
    with pytest.raises(sqlite3.IntegrityError, match=r"never deleted|only go from"):
        other.execute(statement)
    other.close()
    assert ledger.entries() == before


def test_the_same_data_set_with_other_patients_is_a_damaged_ledger(tmp_path: Path) -> None:
    charged(tmp_path, data_set("anna", fingerprint="f"))
    with pytest.raises(PrivacyError, match="other patients") as caught:
        charged(tmp_path, data_set("bert", fingerprint="f"))
    assert caught.value.code == "ledger-damaged"


SPENDER = """
import sys
from pathlib import Path
from nognet.errors import PrivacyBudgetError
from tests.builders.ledgers import charged, data_set
import opacus.accountants
print("ready", flush=True)
sys.stdin.readline()
admitted = 0
for number in range(1, 5):
    try:
        charged(Path(sys.argv[1]), data_set("anna", "bert"), number=number,
                max_epsilon=float(sys.argv[2]))
        admitted += 1
    except PrivacyBudgetError:
        pass
print(admitted)
"""


def test_of_many_that_charge_at_once_none_is_forgotten_and_none_passes_the_limit(
    tmp_path: Path,
) -> None:
    limit = epsilon(NoisedSteps(2.0, 0.1, 25)) * 1.001  # five rounds; eight are asked for

    def spend(number: int) -> bool:
        try:
            charged(tmp_path, DATA, number=number, max_epsilon=limit)
        except PrivacyBudgetError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:  # each opens a connection of its own
        admitted = list(pool.map(spend, range(1, 9)))
    assert sum(admitted) == len(Ledger(tmp_path).entries()) == 5


@pytest.mark.slow
def test_two_processes_that_spend_at_once_share_one_budget(tmp_path: Path) -> None:
    limit = epsilon(NoisedSteps(2.0, 0.1, 25)) * 1.001  # five rounds; eight are asked for
    command = [sys.executable, "-c", SPENDER, str(tmp_path / "privacy"), str(limit)]
    spenders = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for spender in spenders:
        assert spender.stdout is not None
        assert spender.stdout.readline() == "ready\n"
    for spender in spenders:  # the file doesn't exist yet: they make it at once, too
        assert spender.stdin is not None
        spender.stdin.write("go\n")
        spender.stdin.flush()
    admitted = [int(spender.communicate(timeout=120)[0]) for spender in spenders]
    entries = Ledger(tmp_path / "privacy").entries()
    assert sum(admitted) == len(entries) == 5
    assert [entry.epsilon_before for entry in entries[1:]] == [
        entry.epsilon_after for entry in entries[:-1]
    ]
    assert entries[-1].epsilon_after == epsilon(NoisedSteps(2.0, 0.1, 25))
