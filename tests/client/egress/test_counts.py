"""How few patients can stand behind what a round of training tells."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from flwr.app import MessageType
from hypothesis import given
from hypothesis import strategies as st
from nognet_client.app import build_app
from nognet_client.egress.counts import fewest_patients

from nognet.data.stored_pair import PairRecord
from nognet.wire.records import TrainReply
from tests.builders.egress import ask, train_content, train_task
from tests.builders.federation import make_site, make_study, stub_work


def record(number: int, patient: int) -> PairRecord:
    return PairRecord(f"pair{number}", f"p{patient}", 90.0, 1.0, 1.0, "stable", "", "")


@given(st.lists(st.integers(0, 4), max_size=8), st.integers(0, 10))
def test_the_fewest_patients_are_those_of_some_draw(patients: list[int], drawn: int) -> None:
    records = [record(number, patient) for number, patient in enumerate(patients)]
    draws = combinations(patients, min(drawn, len(patients)))
    assert fewest_patients(records, drawn) == min(len(set(draw)) for draw in draws)


@pytest.mark.parametrize(("steps", "batch", "leaves"), [(1, 1, False), (2, 2, False), (1, 5, True)])
def test_the_loss_of_a_few_patients_does_not_leave(
    tmp_path: Path, steps: int, batch: int, leaves: bool
) -> None:
    training = {"steps_per_round": steps, "batch_size": batch, "warmup_steps": 0}
    study = make_study(tmp_path, training=training)
    site = make_site(tmp_path, "site_a", pairs=70, min_patients=5)
    task = train_task(study)
    answer = ask(build_app(stub_work()), site, MessageType.TRAIN, train_content(task))
    reply = TrainReply.from_content(answer.content, length=task.weights.size)
    assert (reply.mean_loss is not None) == leaves
