"""Of whom figures were given, also of patients who stand behind those of others."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from flwr.app import MessageType
from flwr.clientapp import ClientApp
from hypothesis import given, settings
from hypothesis import strategies as st
from nognet_client.app import build_app
from nognet_client.egress.cohorts import admit_behind

from nognet.config import StudyConfig
from nognet.data.stored_pair import PairRecord
from nognet.metrics.statistics import PairRow, SiteStatistics
from nognet.types import Split
from nognet.wire.records import EvaluateReply
from tests.builders.egress import ask, evaluate_task, with_more_patients
from tests.builders.federation import make_site, make_study, stub_work

pytestmark = pytest.mark.usefixtures("flower_task")


def every_figure(*given: Any, split: Any, **_: Any) -> SiteStatistics:
    """Give what a final test gives: four predictors, intervals of those that are trained."""
    values = {"dsc": 0.5, "interval_width": 0.3, "interval_coverage": 1.0}
    of = {"federated": values, "personalised": values, "copy": {"dsc": 0.5}}
    return SiteStatistics.from_pairs(
        PairRow(name, record.patient_id, record.stratum, metrics, 1.0)
        for record in given[2].records(split)
        for name, metrics in {**of, "isotropic": {"dsc": 0.5}}.items()
    )


OF_TRAINING = {"isotropic|dsc", "personalised|dsc"}
OF_VALIDATION = {f"federated|interval_{kind}" for kind in ("width", "coverage")}
OWN_INTERVALS = {f"personalised|interval_{kind}" for kind in ("width", "coverage")}
ALWAYS = {"federated|dsc", "copy|dsc"}
EVERYTHING = ALWAYS | OF_TRAINING | OF_VALIDATION | OWN_INTERVALS


def told_of_all(app: ClientApp, site: Path, study: StudyConfig, split: Split) -> set[str]:
    answer = ask(app, site, MessageType.EVALUATE, evaluate_task(study, split=split).to_content())
    flat = EvaluateReply.from_content(answer.content).statistics
    told = {key.removesuffix("|all|n_pairs") for key in flat if key.endswith("|all|n_pairs")}
    return {name for name in told if not name.endswith("|growth_auc")}


@pytest.mark.parametrize("more", [1, 4, 5])
@pytest.mark.parametrize(
    ("into", "evaluated", "lost"),
    [
        ("train", "test", OF_TRAINING | OWN_INTERVALS),
        ("train", "validation", OF_TRAINING | OWN_INTERVALS),
        ("validation", "test", OF_VALIDATION | OWN_INTERVALS),
    ],
)
def test_what_depends_on_patients_behind_the_figures_is_withheld_where_few_of_those_changed(
    tmp_path: Path, into: Split, evaluated: Split, lost: set[str], more: int
) -> None:
    """The difference of the two would be one patient's growth, or his part in the intervals."""
    study = make_study(tmp_path)
    site = make_site(tmp_path, "site_a", pairs=70, min_patients=5)
    app = build_app(replace(stub_work(), evaluate=every_figure))
    assert told_of_all(app, site, study, evaluated) == EVERYTHING
    assert told_of_all(app, site, study, evaluated) == EVERYTHING
    with_more_patients(site, more, into=into)
    for _ in range(2):
        found = told_of_all(app, site, study, evaluated)
        assert found == (EVERYTHING - lost if more < 5 else EVERYTHING)


def test_the_patients_behind_figures_are_those_of_all_splits_together(tmp_path: Path) -> None:
    """Either split tells the median growth, so one before and one after would tell its shift."""
    study = make_study(tmp_path)
    site = make_site(tmp_path, "site_a", pairs=70, min_patients=5)
    app = build_app(replace(stub_work(), evaluate=every_figure))
    assert told_of_all(app, site, study, "validation") >= OF_TRAINING
    with_more_patients(site, 1, into="train")
    assert not OF_TRAINING & told_of_all(app, site, study, "test")


def record_of(number: int) -> PairRecord:
    name = f"{number:08x}"
    return PairRecord(name, name, 100.0, 50.0, 60.0, "stable", f"{name}.npz", name)


@given(
    st.lists(st.frozensets(st.integers(0, 11), min_size=5), min_size=1, max_size=6),
    st.integers(2, 5),
)
@settings(max_examples=50, deadline=None)
def test_no_two_sets_behind_figures_that_left_differ_by_few(
    sets: list[frozenset[int]], least: int
) -> None:
    made = [record_of(number) for number in range(12)]
    left: list[frozenset[int]] = []
    with TemporaryDirectory() as folder:
        for chosen in sets:
            records = [made[number] for number in sorted(chosen)]
            if admit_behind(Path(folder), "train", records, least):
                left.append(chosen)
    for one, other in combinations(left, 2):
        changed_ones = max(len(one - other), len(other - one))
        assert changed_ones == 0 or changed_ones >= least
    assert left[0] == sets[0]
