"""Too few patients are never behind a number that leaves, nor behind a difference of two."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import MessageType
from nognet_client.app import build_app
from nognet_client.egress.cohorts import admit_cohort
from nognet_client.tasks import Work

from nognet.errors import EgressError
from nognet.metrics.statistics import PairRow, SiteStatistics
from nognet.wire.records import (
    EvaluateReply,
    JoinReply,
)
from tests.builders.egress import (
    ask,
    evaluate_task,
    join_task,
    receipt,
    train_content,
    train_task,
    with_more_patients,
)
from tests.builders.federation import make_site, make_study, opened, stub_work


def test_too_few_training_patients_do_not_train(tmp_path: Path) -> None:
    study, calls = make_study(tmp_path), []
    site = make_site(tmp_path, "site_a", pairs=7, min_patients=4)

    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        return stub_work().train(*arguments, **named)

    app = build_app(Work(train=counted, evaluate=stub_work().evaluate))
    answer = ask(app, site, MessageType.TRAIN, train_content(train_task(study)))
    assert answer.error.reason == "EgressError:too-few-patients"
    assert calls == []


def test_a_split_with_too_few_patients_gives_no_figures(tmp_path: Path) -> None:
    study, site = make_study(tmp_path), make_site(tmp_path, "site_a", min_patients=3)
    answer = ask(
        build_app(stub_work()), site, MessageType.EVALUATE, evaluate_task(study).to_content()
    )
    assert answer.error.reason == "EgressError:withheld"


def test_joining_tells_no_count_of_too_few_patients(tmp_path: Path) -> None:
    study, site = make_study(tmp_path), make_site(tmp_path, "site_a", min_patients=3)
    answer = ask(build_app(stub_work()), site, MessageType.QUERY, join_task(study).to_content())
    reply = JoinReply.from_content(answer.content)
    assert reply.min_patients == 3
    assert reply.counts["train"]["patients"] == 3
    assert set(reply.counts["train"]["strata"].values()) == {None}
    assert reply.counts["test"]["patients"] is reply.counts["test"]["pairs"] is None
    assert "test|patients|withheld" in receipt(site, "join.json")["withheld"]


def test_a_stratum_with_too_few_patients_is_withheld_on_the_way_out(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    site = make_site(tmp_path, "site_a", pairs=70, min_patients=7)  # 20 test patients: 6, 7, 7
    answer = ask(
        build_app(stub_work()), site, MessageType.EVALUATE, evaluate_task(study).to_content()
    )
    reply = EvaluateReply.from_content(answer.content)
    strata = SiteStatistics.from_flat(reply.statistics).predictors["copy"].metrics["dsc"].strata
    sizes = {name: part.n_pairs for name, part in strata.items() if not part.withheld}
    assert sum(part.withheld for part in strata.values()) == 2
    assert len(sizes) == 1
    found = receipt(site, "00001-evaluate-test.json")
    assert {"copy|dsc|growing", "federated|growth_auc|all"} & set(found["withheld"])
    assert found["figures"]["copy|dsc"] == {"all": 20, **sizes}  # what left, by name and count
    assert set(found["figures"]) == {"copy|dsc", "federated|dsc"}


def half_undefined(*given: Any, split: Any, **_: Any) -> Any:
    """Give two metrics, one of which is undefined for two patients."""
    _study, _site, prepared, *_rest = given
    found = prepared.records(split)
    rest = {record.patient_id for record in found[2:]}
    return SiteStatistics.from_pairs(
        PairRow(
            "federated",
            record.patient_id,
            record.stratum,
            {"dsc": 0.5, "ssim_nodule": 0.5 if record.patient_id in rest else math.nan},
            1.0,
        )
        for record in found
    )


@pytest.mark.parametrize("metrics", [[], ["ssim_nodule"], ["growth_auc"]])
def test_what_consent_lets_out_is_held_against_all_patients_not_against_itself(
    tmp_path: Path, metrics: list[str]
) -> None:
    """The counts of a metric alone would tell for how many patients it is undefined."""
    study = make_study(tmp_path)
    site = make_site(tmp_path, "site_a", pairs=70, min_patients=5)
    site.write_text(f"{site.read_text()}consent: {{metrics: {json.dumps(metrics)}}}\n")
    app = build_app(replace(stub_work(), evaluate=half_undefined))
    answer = ask(app, site, MessageType.EVALUATE, evaluate_task(study).to_content())
    assert answer.has_content()
    reply = EvaluateReply.from_content(answer.content)
    told = {key for key, value in reply.statistics.items() if not key.endswith("|withheld")}
    assert told == {key for key in told if "|growth_auc|" in key and "growth_auc" in metrics}
    assert bool(told) == ("growth_auc" in metrics)


@pytest.mark.parametrize(("more", "leaves"), [(1, False), (4, False), (5, True)])
def test_figures_of_nearly_the_same_patients_do_not_leave(
    tmp_path: Path, more: int, leaves: bool
) -> None:
    """The difference of the two would be the figures of the patients that came."""
    study = make_study(tmp_path)
    site = make_site(tmp_path, "site_a", pairs=70, min_patients=5)
    app, content = build_app(stub_work()), evaluate_task(study).to_content()
    assert ask(app, site, MessageType.EVALUATE, content).has_content()
    assert ask(app, site, MessageType.EVALUATE, content).has_content()
    answer = ask(app, with_more_patients(site, more), MessageType.EVALUATE, content)
    assert answer.has_content() == leaves
    if not leaves:
        assert answer.error.reason == "EgressError:withheld"


def test_patients_that_changed_in_one_stratum_alone_cost_the_strata(tmp_path: Path) -> None:
    site = make_site(tmp_path, "site_a", pairs=70)
    _, prepared = opened(site)
    records = prepared.records("test")
    growing = [r for r in records if r.stratum == "growing"][:2]
    others = [r for r in records if r.stratum == "stable"][:5]
    rest = [r for r in records if r not in (*growing, *others)]
    assert admit_cohort(tmp_path, "test", records, 5)
    assert admit_cohort(tmp_path, "test", records, 5)
    assert not admit_cohort(tmp_path, "test", [*rest], 5)
    with pytest.raises(EgressError):
        admit_cohort(tmp_path, "test", [*rest, growing[0]], 5)
