"""Whole federations in which part of the model is each site's own."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message, RecordDict
from nognet_client.tasks import Work
from nognet_server.runs.checkpoints import load_weights
from nognet_server.runs.folder import RunFolder, new_run_folder, write_study

from nognet.config import StudyConfig
from nognet.data.store import write_store
from nognet.errors import FederationError, TrainingError
from nognet.fit.evaluate import evaluate_split
from nognet.fit.model_file import load_model
from nognet.fit.parts import local_spec, part_of, shared_spec, whole
from nognet.fit.personal import fine_tuned
from nognet.fit.train import train_round
from nognet.fit.weights import Weights, initial_weights
from nognet.report.html import render_report
from nognet.report.metrics_file import read_metrics
from nognet.report.site_cases import cases_of_site
from nognet.report.tables import plain_text
from nognet.types import SPLITS, Split
from nognet.wire.flat import FlatWeights, flat_length, pack, unpack
from tests.builders.federation import ROI, make_site, make_study, opened, run, stub_evaluate
from tests.builders.personal import SITES, final_of, sites_in, state_of

LOCAL = {"local": "norms+head"}
TRAINED = Work(train_round, stub_evaluate)


def local_after(folder: Path, site: str, done: RunFolder, study: StudyConfig, upto: int) -> Weights:
    kept = state_of(folder, site, done).latest("local", local_spec(study), upto=upto)
    assert kept is not None
    return kept


def shared_after(done: RunFolder, study: StudyConfig, number: int) -> FlatWeights:
    return load_weights(done, number, length=flat_length(shared_spec(study)))


def same(one: Weights, two: Weights) -> bool:
    return list(one) == list(two) and all(torch.equal(one[name], two[name]) for name in one)


def test_local_parameters_stay_differ_and_go_on_from_round_to_round(tmp_path: Path) -> None:
    study = make_study(tmp_path, personalisation=LOCAL)
    done = run(study, sites_in(tmp_path), work=TRAINED)
    first = part_of(initial_weights(study.network, study.seed), local_spec(study))
    ends = {site: [local_after(tmp_path, site, done, study, n) for n in (1, 2)] for site in SITES}
    for one, two in ends.values():
        assert not same(one, first)
        assert not same(one, two)
    assert not same(ends["site_a"][1], ends["site_b"][1])
    model = load_model(done.model)
    assert model.provenance["parts_left_at_sites"] == "norms+head"
    assert same(part_of(model.weights, local_spec(study)), first)


def test_the_shared_part_is_the_mean_of_what_the_sites_trained(tmp_path: Path) -> None:
    study = make_study(tmp_path, rounds=1, personalisation=LOCAL)
    paths = sites_in(tmp_path)
    done = run(study, paths, work=TRAINED)
    start, spec = initial_weights(study.network, study.seed), shared_spec(study)
    ends = [train_round(study, *opened(path), start, round_number=1).weights for path in paths]
    mean = np.mean([pack(part_of(end, spec), spec).astype(np.float64) for end in ends], axis=0)
    assert np.allclose(shared_after(done, study, 1), mean, atol=1e-6)
    for path, end in zip(paths, ends, strict=True):
        kept = local_after(tmp_path, path.parent.name, done, study, 1)
        assert same(kept, part_of(end, local_spec(study)))


def test_no_local_parameter_is_in_any_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(tmp_path, strategy="scaffold", personalisation=LOCAL)
    sent: list[bytes] = []
    init = Message.__init__

    def recorded(self: Message, content: RecordDict, *rest: Any, **named: Any) -> None:
        if isinstance(content, RecordDict):
            arrays = [a.numpy() for r in content.array_records.values() for a in r.values()]
            texts = [repr(dict(r)) for r in content.config_records.values()]
            sent.extend([*(a.tobytes() for a in arrays), *(t.encode() for t in texts)])
        init(self, content, *rest, **named)

    monkeypatch.setattr(Message, "__init__", recorded)
    done = run(study, sites_in(tmp_path))
    assert len(sent) > 20
    spec = local_spec(study)
    for site in SITES:
        for number in (1, 2):
            for name, tensor in local_after(tmp_path, site, done, study, number).items():
                needle = tensor.numpy().tobytes()[:32]
                assert not any(needle in one for one in sent), name
    assert not any(item.name.encode() in one for item in spec for one in sent)
    sizes = {len(one) for one in sent if len(one) > 100_000}
    assert sizes == {4 * flat_length(shared_spec(study))}


def broken_in_round_two(*arguments: Any, **named: Any) -> Any:
    if named["round_number"] == 2 and arguments[1].name == "site_b":
        raise TrainingError("out of memory")
    return train_round(*arguments, **named)


@pytest.mark.parametrize(
    ("wanted", "lost"),
    [({**LOCAL, "ditto_lambda": 5.0}, "replies"), ({"fine_tune_steps": 2}, "nothing")],
)
def test_an_interrupted_run_ends_in_the_same_bits(
    tmp_path: Path, wanted: dict[str, Any], lost: str
) -> None:
    changes = {"rounds": 3, "federation": {"minimum_sites": 2}, "personalisation": wanted}
    study = make_study(tmp_path, **changes)
    smooth = run(study, sites_in(tmp_path / "smooth"), work=TRAINED)
    broken = new_run_folder(study)
    write_study(broken, study)
    paths = sites_in(tmp_path / "broken")
    with pytest.raises(FederationError):
        run(study, paths, work=Work(broken_in_round_two, stub_evaluate), folder=broken)
    if lost == "replies":  # site_a trained round 2 and trains it again, from what it had before
        for site in SITES:
            shutil.rmtree(tmp_path / "broken" / site / "state" / "replies")
    run(study, paths, work=TRAINED, folder=broken)
    for number in (1, 2, 3):
        one, two = (shared_after(f, study, number) for f in (smooth, broken))
        assert np.array_equal(one, two)
    for site in SITES:
        models = [
            load_model(state_of(tmp_path / name, site, done).model)
            for name, done in (("smooth", smooth), ("broken", broken))
        ]
        assert same(models[0].weights, models[1].weights)


def test_each_sites_own_model_is_what_its_figures_are_of(tmp_path: Path) -> None:
    study = make_study(tmp_path, personalisation={"local": "norms", "fine_tune_steps": 2})
    paths = sites_in(tmp_path)
    done = run(study, paths)
    final = final_of(done)
    for path in paths:
        config, prepared = opened(path)
        local = local_after(tmp_path, config.name, done, study, final.round)
        shared = shared_after(done, study, final.round)
        federated = whole(study, unpack(shared, shared_spec(study)), local)
        personal = fine_tuned(study, config, prepared, federated)
        saved = load_model(state_of(tmp_path, config.name, done).model)
        assert same(saved.weights, personal)
        assert saved.provenance["site"] == config.name
        expected = evaluate_split(
            study, config, prepared, federated, split="test", personal=personal
        ).figures()
        found = final.sites[config.name].test
        assert set(found) == {"federated", "personalised", "copy", "isotropic"}
        for name in ("federated", "personalised"):
            assert found[name]["psnr"].mean == pytest.approx(expected[name]["psnr"]["mean"])
    assert final.pooled is not None
    assert final.pooled.test["personalised"]["dsc"].n_pairs == 4


def test_a_run_resumed_after_its_end_repeats_its_final_test(tmp_path: Path) -> None:
    study = make_study(tmp_path, personalisation={"fine_tune_steps": 1})
    paths = sites_in(tmp_path)
    done = run(study, paths, work=TRAINED)
    first = final_of(done)
    for site in SITES:
        shutil.rmtree(tmp_path / site / "state" / "replies")
    run(study, paths, work=TRAINED, folder=done)
    assert final_of(done) == first
    assert first.left_out == {}


def test_under_privacy_at_one_site_its_own_models_figures_are_reported_as_withheld(
    tmp_path: Path,
) -> None:
    study = make_study(tmp_path, rounds=1, personalisation={"fine_tune_steps": 1})
    paths = sites_in(tmp_path)
    private = "privacy: {noise_multiplier: 1.0, delta: 1.0e-3}\n"
    paths[0].write_text(paths[0].read_text() + private)
    done = run(study, paths)
    final = final_of(done)
    assert {f.withheld for f in final.sites["site_a"].test["personalised"].values()} == {1}
    assert {f.n_pairs for f in final.sites["site_a"].test["personalised"].values()} == {0}
    assert final.sites["site_b"].test["personalised"]["dsc"].n_pairs == 2
    assert final.pooled is not None
    pooled = final.pooled.test
    assert (pooled["federated"]["dsc"].n_pairs, pooled["federated"]["dsc"].withheld) == (4, 0)
    assert (pooled["personalised"]["dsc"].n_pairs, pooled["personalised"]["dsc"].withheld) == (2, 1)
    metrics = read_metrics(done.path)
    for shown in (render_report(metrics), plain_text(metrics)):
        words = " ".join(shown.split())
        assert (
            "Withheld as a whole, as it tells of training patients: personalised model by" in words
        )
        assert "Pooled figures" not in words
        assert "no epsilon would cover" in words
    assert state_of(tmp_path, "site_a", done).model.is_file()


def test_the_sites_report_shows_its_own_model(tmp_path: Path) -> None:
    study = make_study(tmp_path, rounds=1, personalisation={"local": "norms", "fine_tune_steps": 2})
    done = run(study, sites_in(tmp_path))
    config, prepared = opened(tmp_path / "site_a" / "site.yaml")
    elsewhere = config.model_copy(update={"state": tmp_path / "elsewhere"})
    own_model = state_of(tmp_path, "site_a", done).model
    shown, global_one, own = (
        [case.predicted.tobytes() for case in cases_of_site(model, site, prepared)]
        for model, site in ((done.model, config), (done.model, elsewhere), (own_model, elsewhere))
    )
    assert shown == own
    assert shown != global_one


def shifted_site(folder: Path, name: str, image_of: Callable[[Any], Any]) -> Path:
    """Make a site whose scanner shows everything in other intensities."""
    path = make_site(folder, name, seed=2)
    config, prepared = opened(path)
    pairs = [pair for split in SPLITS for pair in prepared.pairs(split)]
    splits: dict[str, Split] = {
        pair.patient_id: split for split in SPLITS for pair in prepared.pairs(split)
    }
    seen = [
        dataclasses.replace(
            pair,
            baseline=image_of(pair.baseline).astype(np.float32),
            follow_up=image_of(pair.follow_up).astype(np.float32),
        )
        for pair in pairs
    ]
    shutil.rmtree(config.cache)
    write_store(config.cache, seen, splits, roi=ROI)
    return path


@pytest.mark.slow
def test_norms_of_unlike_scanners_go_more_different_ways_than_those_of_like_ones(
    tmp_path: Path,
) -> None:
    training = {"steps_per_round": 4, "batch_size": 3, "warmup_steps": 0}
    study = make_study(tmp_path, seed=2, training=training, personalisation={"local": "norms"})
    first = part_of(initial_weights(study.network, study.seed), local_spec(study))
    likeness = {}
    for kind, image_of in {"like": lambda x: x, "unlike": lambda x: 1 - 0.8 * x}.items():
        home = tmp_path / kind
        sites = [make_site(home, "site_a", seed=2), shifted_site(home, "site_b", image_of)]
        done = run(study, sites, work=TRAINED)
        moved = [
            torch.cat([(tensor - first[name]).flatten() for name, tensor in kept.items()])
            for kept in (local_after(home, site, done, study, 2) for site in SITES)
        ]
        likeness[kind] = float(torch.cosine_similarity(*moved, dim=0))
    assert likeness["unlike"] < likeness["like"]


def test_without_personalisation_nothing_is_left_at_the_sites(tmp_path: Path) -> None:
    done = run(make_study(tmp_path, rounds=1), sites_in(tmp_path))
    assert set(final_of(done).sites["site_a"].test) == {"federated", "copy", "isotropic"}
    assert not (tmp_path / "site_a" / "state" / "personal").exists()
