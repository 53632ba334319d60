"""A site's own word on visiting models, whatever the coordinator asks."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import MessageType
from nognet_client.app import build_app
from nognet_client.egress.gate import check_content
from nognet_client.egress.limits import limits_of
from nognet_client.egress.replies import of_evaluation
from nognet_client.evaluating import evaluate, share
from nognet_client.personal.model import OwnModel
from nognet_client.site import Site
from nognet_client.tasks import Work

from nognet.config import StudyConfig
from nognet.errors import ConfigError, EgressError, WireError
from nognet.fit.weights import initial_weights, weight_spec
from nognet.metrics.statistics import PairRow, SiteStatistics
from nognet.wire.contract import contract, contract_hash
from nognet.wire.flat import pack
from nognet.wire.records import EvaluateReply, EvaluateTask, ShareTask
from tests.builders.egress import ask
from tests.builders.federation import make_site, make_study, opened, stub_work

TOKEN = "ab" * 16


def site_in(folder: Path, *, shares: bool) -> Site:
    path = make_site(folder, "site_a")
    path.write_text(path.read_text() + f"share_models: {str(shares).lower()}\n")
    return Site(*opened(path))


def share_task(study: StudyConfig) -> ShareTask:
    return ShareTask(1, study.for_sites(), contract_hash(contract(study)), TOKEN)


def visit_task(study: StudyConfig) -> EvaluateTask:
    weights = pack(initial_weights(study.network, study.seed), weight_spec(study.network))
    asked = share_task(study)
    return EvaluateTask(
        1, "test", asked.study_json, asked.contract_hash, TOKEN, weights, model_of="site_b"
    )


@pytest.mark.parametrize(
    ("shares", "cross_site", "code"),
    [(False, "local", "not-shared"), (True, "none", "not-asked"), (False, "none", "not-asked")],
)
def test_no_model_goes_or_comes_unless_study_and_site_agree(
    tmp_path: Path, shares: bool, cross_site: str, code: str
) -> None:
    study = make_study(tmp_path, personalisation={"local": "norms", "cross_site": cross_site})
    site = site_in(tmp_path, shares=shares)
    own = OwnModel(study, site.config, site.prepared, TOKEN)
    start = initial_weights(study.network, study.seed)
    own.keep(start, None, 1)
    assert own.finish(start, 1) is None
    assert own.state.model.is_file()
    with pytest.raises(ConfigError) as given:
        share(share_task(study), site)
    with pytest.raises(ConfigError) as taken:
        evaluate(visit_task(study), site, stub_work())
    assert given.value.code == taken.value.code == code


def test_a_visiting_model_gives_its_own_figures_and_leaves_nothing(tmp_path: Path) -> None:
    study = make_study(tmp_path, personalisation={"local": "norms", "cross_site": "personalised"})
    site, calls = site_in(tmp_path, shares=True), []

    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(arguments[3])
        return stub_work().evaluate(*arguments, **named)

    work = Work(train=stub_work().train, evaluate=counted)
    one, two = (evaluate(visit_task(study), site, work) for _ in range(2))
    assert len(calls) == 1
    assert one == two
    assert one.model_of == "site_b"
    assert {key.split("|")[0] for key in one.statistics} == {"visiting"}
    assert not (site.config.state / "personal").exists()


def test_a_model_of_another_round_or_none_is_not_given(tmp_path: Path) -> None:
    study = make_study(tmp_path, personalisation={"local": "norms", "cross_site": "personalised"})
    site = site_in(tmp_path, shares=True)
    with pytest.raises(WireError):
        share(share_task(study), site)
    OwnModel(study, site.config, site.prepared, TOKEN).finish(
        initial_weights(study.network, study.seed), 2
    )
    with pytest.raises(WireError, match="another round"):
        share(share_task(study), site)


def test_a_site_that_took_no_part_has_no_personal_model(tmp_path: Path) -> None:
    study = make_study(tmp_path, personalisation={"ditto_lambda": 1.0})
    site = site_in(tmp_path, shares=False)
    own = OwnModel(study, site.config, site.prepared, TOKEN)
    assert own.finish(initial_weights(study.network, study.seed), 1) is None
    assert not own.state.model.exists()


PRIVACY = "{noise_multiplier: 1.0, delta: 1.0e-3}"


def with_personal(*given: Any, split: Any, personal: Any = None, **_: Any) -> SiteStatistics:
    """Evaluate the federated model, and the personal one where there is one."""
    names = {"federated": 0.5, "copy": 0.4} | ({} if personal is None else {"personalised": 0.75})
    return SiteStatistics.from_pairs(
        PairRow(name, record.patient_id, record.stratum, {"dsc": value}, 1.0)
        for record in given[2].records(split)
        for name, value in names.items()
    )


def final_test(study: StudyConfig) -> EvaluateTask:
    return replace(visit_task(study), model_of=None, personalise=True)


@pytest.mark.usefixtures("flower_task")
@pytest.mark.parametrize("least", [1, 2])
@pytest.mark.parametrize("private", ["study", "site", "neither"])
def test_under_privacy_the_figures_of_the_sites_own_model_stay_in_its_log(
    tmp_path: Path,
    private: str,
    least: int,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("nognet"), "propagate", True)
    caplog.set_level(logging.INFO)
    asked = {"privacy": {"noise_multiplier": 1.0, "delta": 1e-3}} if private == "study" else {}
    study = make_study(tmp_path, personalisation={"fine_tune_steps": 1}, **asked)
    path = make_site(tmp_path, "site_a", min_patients=least)
    if private == "site":
        path.write_text(f"{path.read_text()}privacy: {PRIVACY}\n")
    app = build_app(replace(stub_work(), evaluate=with_personal))
    answer = ask(app, path, MessageType.EVALUATE, final_test(study).to_content())
    found = SiteStatistics.from_flat(EvaluateReply.from_content(answer.content).statistics)
    own = found.predictors["personalised"]
    assert found.predictors["federated"].metrics["dsc"].all.n_pairs == 2
    told = private == "neither"
    assert own.metrics["dsc"].all.withheld == int(not told)
    assert own.growth.withheld or told
    assert (own.metrics["dsc"].all.n_pairs > 0) == told
    assert ("0.750 (0.500); these figures stay here" in caplog.text) == (not told)
    config, prepared = opened(path)
    assert OwnModel(study, config, prepared, TOKEN).state.model.is_file()


def test_the_gate_lets_no_figure_of_the_sites_own_model_out_under_privacy(tmp_path: Path) -> None:
    private = {"noise_multiplier": 1.0, "delta": 1e-3}
    study = make_study(tmp_path, personalisation={"fine_tune_steps": 1}, privacy=private)
    site, task = site_in(tmp_path, shares=False), final_test(study)
    open_ones = with_personal(study, site.config, site.prepared, split="test", personal={})
    reply = EvaluateReply("site_a", 1, "test", open_ones.to_flat(), 0.1)
    leaving = of_evaluation(task, reply, site, limits_of(site, study, "test"))
    with pytest.raises(EgressError, match=r"of \['personalised'\], of which nothing leaves"):
        check_content(leaving.content, leaving.form)
