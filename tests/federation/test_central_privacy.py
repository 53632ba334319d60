"""Site-level privacy in whole federations in one process: charged, resumed, limited, reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nognet_client.tasks import Work
from nognet_server.central_dp.charges import read_charges
from nognet_server.runs.checkpoints import latest_round, load_checkpoint
from nognet_server.runs.folder import RunFolder, new_run_folder, read_outcome, write_study
from nognet_server.runs.withdrawal import plan_withdrawal, withdraw

from nognet.config import StudyConfig
from nognet.errors import FederationError, PrivacyBudgetError, TrainingError
from nognet.fit.parts import shared_spec
from nognet.privacy.accounting import NoisedSteps, PrivacyHistory
from nognet.report.central import central_sentence
from nognet.report.metrics_file import read_metrics
from nognet.report.summary import privacy_sentence
from nognet.wire.flat import flat_length
from tests.builders.central import central_study
from tests.builders.federation import (
    at_site,
    make_site,
    run,
    stub_evaluate,
    stub_work,
)

NOTHING = PrivacyHistory()


def epsilon(rounds: int) -> float:
    return PrivacyHistory((NoisedSteps(1.0, 1.0, rounds),)).epsilon(1e-3)


def begin(study: StudyConfig) -> RunFolder:
    folder = new_run_folder(study)
    write_study(folder, study)
    return folder


def weights(folder: RunFolder, study: StudyConfig, number: int) -> Any:
    length = flat_length(shared_spec(study))
    return load_checkpoint(folder, number, length=length).weights.astype(np.float64)


def failing_after(evaluations: int) -> Any:
    """Make an evaluation that works so many times."""
    done: list[None] = []

    def evaluate(*arguments: Any, **named: Any) -> Any:
        done.append(None)
        if len(done) > evaluations:
            raise TrainingError("the coordinator's machine went down")
        return stub_evaluate(*arguments, **named)

    return evaluate


def interrupted(study: StudyConfig, sites: list[Path]) -> RunFolder:
    """Play a study whose second round is released and never finished."""
    folder = begin(study)
    work = Work(stub_work().train, failing_after(len(sites)))
    with pytest.raises(FederationError):
        run(study, sites, work=work, folder=folder)
    assert latest_round(folder) == 1
    assert read_charges(folder, at_least=NOTHING).steps == 2
    return folder


def test_a_run_is_noised_by_what_it_is_charged_and_its_report_says_so(tmp_path: Path) -> None:
    study = central_study(tmp_path, sites=4)
    sites = [make_site(tmp_path, name) for name in ("site_a", "site_b", "site_c")]
    never = at_site("site_b", stub_work().train, instead=_out_of_memory)  # it drops out
    folder = run(study, sites, work=Work(never, stub_evaluate))
    metrics = read_metrics(folder.path)
    entry = metrics.central_privacy
    assert entry is not None
    assert (entry.releases, entry.epsilon) == (2, epsilon(2))
    assert entry.planned_epsilon == entry.epsilon
    shares = {site: part.weight for site, part in metrics.rounds[0].sites.items()}
    assert shares == {"site_a": 0.25, "site_b": 0.0, "site_c": 0.25}
    moved = weights(folder, study, 1) - weights(folder, study, 0)
    assert moved.std() == pytest.approx(1.0 * 0.5 / 4, rel=0.05)  # z C / N, whoever answered
    said = central_sentence(metrics)
    assert said is not None
    assert f"epsilon {entry.epsilon:.2f} at delta 0.001 for any one site, over 2 releases" in said
    assert privacy_sentence(metrics) == said


def test_a_round_that_was_released_and_not_finished_is_charged_and_played_again(
    tmp_path: Path,
) -> None:
    study = central_study(tmp_path, sites=2)
    sites = [make_site(tmp_path, name) for name in ("site_a", "site_b")]
    folder = interrupted(study, sites)
    run(study, sites, work=stub_work(), folder=folder)
    entry = read_metrics(folder.path).central_privacy
    assert entry is not None
    assert (entry.releases, entry.epsilon) == (3, epsilon(3))
    assert len(read_metrics(folder.path).rounds) == 2


def test_a_limit_ends_a_resumed_run_in_good_order_before_the_round_that_would_pass_it(
    tmp_path: Path,
) -> None:
    study = central_study(tmp_path, sites=2, privacy={"max_epsilon": epsilon(2)})
    sites = [make_site(tmp_path, name) for name in ("site_a", "site_b")]
    folder = interrupted(study, sites)
    run(study, sites, work=stub_work(), folder=folder)
    metrics = read_metrics(folder.path)
    assert (metrics.status, len(metrics.rounds)) == ("completed", 1)
    assert metrics.final is not None
    assert metrics.central_privacy is not None
    assert metrics.central_privacy.stopped_before_round == 2
    assert metrics.central_privacy.epsilon == epsilon(2)
    assert "stopped the run before round 2" in privacy_sentence(metrics)


def test_what_a_run_released_stays_charged_when_a_site_withdraws_from_it(tmp_path: Path) -> None:
    study = central_study(tmp_path, sites=2)
    sites = [make_site(tmp_path, name) for name in ("site_a", "site_b")]
    folder = run(study, sites, work=stub_work())
    plan = plan_withdrawal(folder, "site_b")
    assert plan.keep_round == 0  # it counted from the first round on
    successor = withdraw(folder, plan)
    run(study, sites[:1], work=stub_work(), folder=successor)
    entry = read_metrics(successor.path).central_privacy
    assert entry is not None
    assert entry.releases == 4


def test_a_plan_that_passes_the_limit_is_refused_before_a_site_is_asked(tmp_path: Path) -> None:
    study = central_study(tmp_path, sites=2, privacy={"max_epsilon": 4.0})
    sites = [make_site(tmp_path, "site_a")]
    folder = begin(study)
    with pytest.raises(PrivacyBudgetError, match="2 rounds with noise_multiplier 1 cost epsilon"):
        run(study, sites, work=Work(_out_of_memory, _out_of_memory), folder=folder)
    outcome = read_outcome(folder)
    assert outcome is not None
    assert outcome.exit_code == PrivacyBudgetError.exit_code
    assert not folder.metrics.exists()


def _out_of_memory(*_: Any, **__: Any) -> Any:
    raise MemoryError
