"""Sites' own models visit one another, where study and both sites agree to that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nognet_client.tasks import Work

from nognet.fit.evaluate import evaluate_split
from nognet.fit.model_file import load_model, save_model
from nognet.fit.personal import MODEL_NAME
from nognet.fit.train import train_round
from nognet.fit.weights import weight_spec
from tests.builders.federation import make_study, opened, run, stub_evaluate
from tests.builders.personal import SITES, final_of, sites_in, state_of

TRAINED = Work(train_round, stub_evaluate)


def test_models_of_sites_that_share_visit_one_another(tmp_path: Path) -> None:
    names = ("site_a", "site_b", "site_c")
    wanted = {"fine_tune_steps": 2, "cross_site": "personalised"}
    study = make_study(tmp_path, rounds=1, personalisation=wanted)
    paths = sites_in(tmp_path, sharing=("site_a", "site_b"), names=names)
    done = run(study, paths)
    final = final_of(done)
    assert {m: sorted(at) for m, at in final.cross_site.items()} == {
        "site_a": ["site_a", "site_b"],
        "site_b": ["site_a", "site_b"],
    }
    assert final.cross_site_absent == {"site_c": "not-shared"}
    for site in ("site_a", "site_b"):
        own = final.sites[site].test["personalised"]
        assert final.cross_site[site][site]["psnr"].mean == own["psnr"].mean
    config, prepared = opened(paths[1])
    visitor = load_model(state_of(tmp_path, "site_a", done).model).weights
    there = evaluate_split(study, config, prepared, visitor, split="test").figures()
    mean = there["federated"]["dsc"]["mean"]
    assert final.cross_site["site_a"]["site_b"]["dsc"].mean == pytest.approx(mean)


def test_last_local_models_visit_too(tmp_path: Path) -> None:
    study = make_study(tmp_path, rounds=2, personalisation={"cross_site": "local"})
    done = run(study, sites_in(tmp_path, sharing=SITES))
    final = final_of(done)
    assert sorted(final.cross_site) == list(SITES)
    trained = state_of(tmp_path, "site_a", done).latest("trained", weight_spec(study.network))
    assert trained is not None
    config, prepared = opened(tmp_path / "site_b" / "site.yaml")
    there = evaluate_split(study, config, prepared, trained, split="test").figures()
    mean = there["federated"]["psnr"]["mean"]
    assert final.cross_site["site_a"]["site_b"]["psnr"].mean == pytest.approx(mean)


def saved_but_not_at(site: str) -> Callable[..., None]:
    def saved(path: Path, *arguments: Any, **named: Any) -> None:
        if site not in path.parts:
            save_model(path, *arguments, **named)

    return saved


def test_a_site_that_lost_its_model_is_a_gap_and_not_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"local": "norms", "cross_site": "personalised"}
    study = make_study(tmp_path, rounds=1, personalisation=wanted)
    paths = sites_in(tmp_path, sharing=SITES)
    monkeypatch.setattr("nognet_client.personal.model.save_model", saved_but_not_at("site_b"))
    final = final_of(run(study, paths))
    assert final.cross_site_absent == {"site_b": "WireError:no-model"}
    assert sorted(final.cross_site) == ["site_a"]
    assert sorted(final.cross_site["site_a"]) == list(SITES)


def test_no_site_shares_unless_asked_to(tmp_path: Path) -> None:
    study = make_study(tmp_path, rounds=1, personalisation={"local": "norms"})
    done = run(study, sites_in(tmp_path, sharing=SITES), work=TRAINED)
    final = final_of(done)
    assert (final.cross_site, final.cross_site_absent) == ({}, {})
    assert [p.name for p in done.path.rglob(MODEL_NAME)] == []
