"""A site's own word on visiting models, whatever the coordinator asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from nognet_client.evaluating import evaluate, share
from nognet_client.personal.model import OwnModel
from nognet_client.site import Site
from nognet_client.tasks import Work

from nognet.config import StudyConfig
from nognet.errors import ConfigError, WireError
from nognet.fit.weights import initial_weights, weight_spec
from nognet.wire.contract import contract, contract_hash
from nognet.wire.flat import pack
from nognet.wire.records import EvaluateTask, ShareTask
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
