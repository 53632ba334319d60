"""A site makes its own model once a run, of one task."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nognet_client.evaluating import evaluate
from nognet_client.tasks import Site, train

from nognet.config import ConsentConfig, StudyConfig
from nognet.errors import ConsentError
from nognet.wire.records import EvaluateTask
from tests.builders.consent import (
    OTHER,
    evaluate_task,
    site_with,
    train_task,
)
from tests.builders.federation import make_study, stub_work

OWN = {"personalisation": {"fine_tune_steps": 1}}


def final_test(study: StudyConfig, number: int = 2, **changes: Any) -> EvaluateTask:
    return replace(evaluate_task(study, number), personalise=True, **changes)


def test_a_site_makes_its_own_model_once_a_run_and_of_the_same_task_again(tmp_path: Path) -> None:
    study, site = make_study(tmp_path, **OWN), site_with(tmp_path)
    task = final_test(study)
    first = evaluate(task, site, stub_work())
    shutil.rmtree(site.config.state / "replies")  # as a resumed run asks it again much later
    assert evaluate(task, site, stub_work()).statistics == first.statistics
    for other in (
        replace(task, weights=task.weights + np.float32(1)),
        replace(task, round_number=1),
    ):
        with pytest.raises(ConsentError, match="once, for the test at a run's end") as found:
            evaluate(other, site, stub_work())
        assert found.value.code == "consent-personalise"
        evaluate(replace(other, personalise=False), site, stub_work())
    evaluate(replace(task, run_token=OTHER), site, stub_work())


def test_what_changes_at_the_site_is_no_other_task(tmp_path: Path) -> None:
    study, site = make_study(tmp_path, **OWN), site_with(tmp_path)
    evaluate(final_test(study), site, stub_work())
    changed = site.config.model_copy(update={"threads": 2, "consent": ConsentConfig()})
    evaluate(final_test(study), Site(changed, site.prepared), stub_work())


def test_the_task_of_the_own_model_is_noted_before_it_is_worked_on(tmp_path: Path) -> None:
    def dies(*_: Any, **__: Any) -> Any:
        raise MemoryError

    study, site = make_study(tmp_path, **OWN), site_with(tmp_path)
    task = final_test(study)
    with pytest.raises(MemoryError):
        evaluate(task, site, replace(stub_work(), evaluate=dies))
    with pytest.raises(ConsentError):
        evaluate(replace(task, weights=task.weights + np.float32(1)), site, stub_work())
    assert evaluate(task, site, stub_work()).statistics


def test_after_its_own_model_a_site_trains_no_more_in_the_run(tmp_path: Path) -> None:
    study, site = make_study(tmp_path, **OWN), site_with(tmp_path)
    kept = train(train_task(study), site, stub_work())
    evaluate(final_test(study), site, stub_work())
    with pytest.raises(ConsentError, match="whose final test made this site's own model") as found:
        train(train_task(study, 2), site, stub_work())
    assert found.value.code == "consent-personalise"
    assert train(train_task(study), site, stub_work()).seconds == kept.seconds
    train(train_task(study, 1, token=OTHER), site, stub_work())


def test_where_no_site_has_a_model_of_its_own_a_final_test_ends_nothing(tmp_path: Path) -> None:
    study, site = make_study(tmp_path), site_with(tmp_path)
    task = final_test(study)
    for sent in (task, replace(task, weights=task.weights + np.float32(1))):
        evaluate(sent, site, stub_work())
    assert train(train_task(study, 2), site, stub_work()).round_number == 2
