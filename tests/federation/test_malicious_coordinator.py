"""A coordinator that is curious, or hostile: what it asks for beyond a study is refused.

Messages are built by hand against the client app as the worker calls it. After each of them: class
and code are all that came back, the refusal is in the site's audit log, whose chain holds, and the
site serves the next honest round.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from nognet_client.app import build_app
from nognet_client.consent.served import ServedRecord

from nognet.config import load_site
from nognet.data.store import open_store, write_index
from nognet.types import Split
from nognet.wire.contract import contract
from nognet.wire.records import JoinTask, MaskedTrainTask, TrainReply
from tests.builders.egress import RUN, evaluate_task, join_task, train_content, train_task
from tests.builders.federation import make_site, make_study, stub_work
from tests.builders.hostile import (
    CONSENT,
    CROSS_SITE,
    OTHER_RUN,
    Hospital,
    claims_terabytes,
    evaluating,
    joined_sharing,
    joining,
    of_kind,
    other_study,
    sharing,
    training,
    weights_like,
    with_key,
    with_record,
    with_study,
    with_vector,
)

pytestmark = pytest.mark.usefixtures("flower_task")


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    """A site that joined an honest run and has trained its first round."""
    path = make_site(tmp_path, "site_a")
    path.write_text(path.read_text() + CONSENT)
    made = Hospital(path, make_study(tmp_path), build_app(stub_work()))
    assert made.ask("query", join_task(made.study).to_content()).has_content()
    assert made.train(1).has_content()
    return made


HOSTILE: dict[str, tuple[Callable[[Hospital], tuple[str, RecordDict]], str]] = {
    # raw tensors, by records, keys, vectors and actions that no study has
    "a record of raw volumes": (
        lambda h: with_record(h, "volumes", ArrayRecord({"baseline": Array(np.zeros(1))})),
        "WireError:records",
    ),
    "a record of commands": (
        lambda h: with_record(h, "run", ConfigRecord({"shell": "id"})),
        "WireError:records",
    ),
    "a key that asks for tensors": (
        lambda h: with_key(h, "return-tensors", True),
        "WireError:keys",
    ),
    "a vector to be filled": (
        lambda h: with_vector(h, "images", Array(np.zeros(3, np.float32))),
        "WireError:keys",
    ),
    "a query of its own": (of_kind("query.dump"), "WireError:message-type"),
    "a training of its own": (of_kind("train.without_noise"), "WireError:message-type"),
    # more than was agreed to
    "a thousand rounds": (lambda h: joining(h, rounds=1000), "ConsentError:consent-max-rounds"),
    "round one thousand": (
        lambda h: training(h, round_number=1000),
        "ConsentError:consent-round",
    ),
    "round zero": (lambda h: training(h, round_number=0), "ConsentError:consent-round"),
    "another study": (lambda h: joining(h, name="other"), "ConsentError:consent-study"),
    "another study within the run": (
        lambda h: training(h, study_json=other_study(h, seed=6)),
        "ConsentError:consent-study-changed",
    ),
    "figures of training patients": (
        lambda h: evaluating(h, split="train"),
        "ConsentError:consent-split",
    ),
    "a personal model in every round": (
        lambda h: evaluating(h, split="validation", personalise=True),
        "ConsentError:consent-personalise",
    ),
    "the site's own model, by a study changed within the run": (
        lambda h: sharing(with_study(h, **CROSS_SITE), RUN),
        "ConsentError:consent-study-changed",
    ),
    "the site's own model, by a study that asks for it": (
        lambda h: joined_sharing(h, OTHER_RUN),
        "ConfigError:not-shared",
    ),
    "a round of a run that it never joined": (
        lambda h: training(h, run_token=OTHER_RUN),
        "ConsentError:consent-release",
    ),
    "the site's own model, which the study doesn't ask for": (
        lambda h: sharing(h.study, RUN),
        "ConfigError:not-asked",
    ),
    "another hospital's model as a guest": (
        lambda h: evaluating(h, model_of="site_b"),
        "ConfigError:not-asked",
    ),
    # another meaning of the numbers
    "another contract": (
        lambda h: training(h, contract_hash="00" * 32),
        "ContractError:contract-changed",
    ),
    "another network": (
        lambda h: training(
            h,
            study_json=other_study(h, network={"width": 8}),
            run_token=OTHER_RUN,
        ),
        "ContractError:contract-changed",
    ),
    # damaged, or far too large
    "weights that are too short": (
        lambda h: training(h, weights=weights_like(h, 0.1, more=-1)),
        "WireError:shape",
    ),
    "weights a hundred times too long": (
        lambda h: training(h, weights=np.zeros(5_500_000, np.float32)),
        "WireError:shape",
    ),
    "weights that are not numbers": (
        lambda h: training(h, weights=weights_like(h, np.nan)),
        "WireError:non-finite",
    ),
    "weights beyond all bounds": (
        lambda h: training(h, weights=weights_like(h, 1e30)),
        "WireError:too-large",
    ),
    "a vector that claims four terabytes": (
        lambda h: with_vector(h, "weights", claims_terabytes()),
        "WireError:damaged",
    ),
    "a study of five million letters": (
        lambda h: training(h, study_json="x" * 5_000_000),
        "WireError:type",
    ),
    "a study nested a hundred thousand deep": (
        lambda h: training(h, study_json="[" * 100_000),
        "ConfigError:config",
    ),
    "a run whose name is a path": (
        lambda h: training(h, run_token="../../../etc"),  # noqa: S106  a name
        "WireError:form",
    ),
    "no content": (lambda _: ("train", RecordDict()), "WireError:records"),
}


@pytest.mark.parametrize("asked", HOSTILE)
def test_it_gets_a_code_on_record_and_the_site_lives_on(hospital: Hospital, asked: str) -> None:
    build, code = HOSTILE[asked]
    kind, content = build(hospital)
    before = len(hospital.recorded())
    answer = hospital.ask(kind, content)
    assert answer.has_error()
    assert answer.error.reason == code
    *earlier, entry = hospital.recorded()[before:]
    assert entry["code"] == code
    assert [e["kind"] for e in earlier] in ([], ["consent"])  # a run that may ask, not get
    served = ServedRecord(hospital.state).read().of("tiny")
    assert served.rounds == 1
    reply = hospital.train(2)
    assert TrainReply.from_content(reply.content, length=train_task(hospital.study).weights.size)
    assert hospital.recorded()[-1]["kind"] == "train"


SUM = {"federation": {"minimum_sites": 3, "expected_sites": 3}, "secure_aggregation": {}}
NOISE_OF_SITES = {
    **SUM,
    "strategy": {"name": "fedavg", "weighting": "equal"},
    "central_privacy": {
        "noise_multiplier": 2.0,
        "clip_norm": 0.5,
        "delta": 1e-3,
        "max_epsilon": 9.0,
    },
}
LIMITED = """secure_aggregation:
  trust_coordinator: true
  required: false
  max_site_epsilon: 20
"""


def masked_training(hospital: Hospital, **changes: Any) -> tuple[str, RecordDict]:
    task = train_task(with_study(hospital, **changes), run=OTHER_RUN)
    return "train.secure", MaskedTrainTask(task, "ef" * 16, {}).to_content()


WITHOUT_NOISE: dict[str, Callable[[Hospital], tuple[str, RecordDict]]] = {
    "a run of plain sums": lambda h: joining(h, **SUM),
    "an update masked without noise": lambda h: masked_training(h, **SUM),
    "a run in the clear": joining,
    "an update in the clear": training,
    "the site's own model": lambda h: sharing(h.study, RUN),
}


@pytest.mark.parametrize("asked", WITHOUT_NOISE)
def test_leaving_out_the_noise_gets_nothing_from_a_site_that_limits_its_epsilon(
    hospital: Hospital, asked: str
) -> None:
    hospital.path.write_text(hospital.path.read_text() + LIMITED)
    for _ in range(3):
        answer = hospital.ask(*WITHOUT_NOISE[asked](hospital))
        assert answer.error.reason == "PrivacyError:secure-no-noise"
        assert hospital.recorded()[-1]["code"] == "PrivacyError:secure-no-noise"
    assert ServedRecord(hospital.state).read().of("tiny").rounds == 1
    assert hospital.ask(*joining(hospital, **NOISE_OF_SITES)).has_content()


def test_another_release_is_declined_by_the_coordinators_own_word(hospital: Hospital) -> None:
    items = {**contract(hospital.study), "nognet": "99.0.0"}
    content = JoinTask(hospital.study.for_sites(), items, OTHER_RUN).to_content()
    answer = hospital.ask("query", content)
    assert answer.error.reason == "ConsentError:consent-release"
    assert hospital.recorded()[-1]["code"] == "ConsentError:consent-release"


def test_new_run_tokens_buy_no_more_rounds(
    hospital: Hospital, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("nognet"), "propagate", True)
    honest = join_task(hospital.study)
    runs = [f"{number:032x}" for number in range(1000, 1012)]
    for run in runs:
        assert hospital.ask("query", dataclasses.replace(honest, run_token=run).to_content())
    answers = [hospital.train(1, run_token=run) for run in runs]
    trained = [answer.has_content() for answer in answers]
    assert trained == [True] * 5 + [False] * 7  # and the honest one before them: six
    assert {a.error.reason for a in answers[5:]} == {"ConsentError:consent-max-rounds"}
    assert "accepted: at most 6 in all its runs (consent.max_rounds in site.yaml" in caplog.text
    assert hospital.ask("query", join_task(hospital.study).to_content()).has_error()


def test_trying_weights_over_and_over_is_counted(hospital: Hospital) -> None:
    weights = train_task(hospital.study).weights
    answers = [hospital.train(1, weights=weights + np.float32(i)) for i in range(1, 9)]
    assert [answer.has_content() for answer in answers] == [True] * 5 + [False] * 3


def test_asking_for_the_sites_own_model_of_crafted_weights_is_answered_once(
    hospital: Hospital,
) -> None:
    """It is trained without noise on whatever weights come: more answers would be queries."""
    own = {"personalisation": {"fine_tune_steps": 1}}
    study = with_study(hospital, **own)
    assert hospital.ask(*joining(hospital, **own)).has_content()
    honest = dataclasses.replace(evaluate_task(study), run_token=OTHER_RUN, personalise=True)
    crafted = dataclasses.replace(honest, weights=honest.weights + np.float32(0.01))
    model = hospital.state / "personal" / OTHER_RUN / "personal.nognet"
    assert hospital.ask("evaluate", honest.to_content()).has_content()
    made = model.read_bytes()
    for task in (crafted, dataclasses.replace(honest, round_number=2)):
        answer = hospital.ask("evaluate", task.to_content())
        assert answer.error.reason == "ConsentError:consent-personalise"
        assert hospital.recorded()[-1]["code"] == "ConsentError:consent-personalise"
    assert model.read_bytes() == made
    assert hospital.ask("evaluate", honest.to_content()).has_content()
    late = dataclasses.replace(train_task(study, round_number=2), run_token=OTHER_RUN)
    answer = hospital.ask("train", train_content(late))
    assert answer.error.reason == "ConsentError:consent-personalise"
    assert hospital.train(2).has_content()  # in its other run


def test_of_one_patient_no_figures_leave(tmp_path: Path) -> None:
    path = make_site(tmp_path, "site_a", pairs=28, min_patients=5)
    one_test_patient(path)
    study = make_study(tmp_path)
    lonely = Hospital(path, study, build_app(stub_work()))
    assert lonely.ask("query", join_task(study).to_content()).has_content()
    answer = lonely.ask(*evaluating(lonely))
    assert answer.error.reason == "EgressError:withheld"
    assert lonely.recorded()[-1]["code"] == "EgressError:withheld"
    assert lonely.ask(*evaluating(lonely, split="validation")).has_content()
    assert lonely.train(1).has_content()


def one_test_patient(path: Path) -> None:
    prepared = open_store(load_site(path).cache)
    splits: dict[str, Split] = dict(prepared.index.splits)
    for patient in [p for p, split in splits.items() if split == "test"][1:]:
        splits[patient] = "train"
    write_index(prepared.folder, prepared.index.records, splits, roi=prepared.roi)


def test_a_curious_coordinator_that_plays_by_the_rules_learns_sums_alone(
    hospital: Hospital,
) -> None:
    """All that an honest run gives: weights of the contract's length, counts, permitted sums."""
    length = train_task(hospital.study).weights.size
    trained = hospital.train(2).content
    assert {n: tuple(r) for n, r in trained.items()} == {
        "arrays": ("weights",),
        "metrics": tuple(trained["metrics"]),
        "config": ("site", "server-round"),
    }
    assert set(trained["metrics"]) == {"n-pairs", "n-patients", "steps", "seconds"}  # no loss
    assert trained.array_records["arrays"]["weights"].shape == (length,)
    found = hospital.ask(*evaluating(hospital)).content
    told = {key.split("|")[1] for key, value in found["statistics"].items() if value}
    assert told == {"dsc"}
    cached = open_store(load_site(hospital.path).cache)
    everything = repr(trained["config"]) + repr(found["config"]) + repr(sorted(found["statistics"]))
    for record in cached.index.records:
        assert record.pair_id not in everything
        assert record.patient_id not in everything
