from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nognet_server.strategies import reply_form, train_messages
from nognet_server.strategies.scaffold import corrections

from nognet.config import STRATEGY_NAMES
from nognet.wire.records import ReplyForm, TrainTask
from tests.builders.strategy_rounds import START, cohort, combined, study_with

pytestmark = pytest.mark.usefixtures("flower_task")
TASK = TrainTask(2, "{}", "cd" * 32, "ab" * 16, START)
NODES = {"site_02": 7, "site_00": 5, "site_09": 3}


@pytest.mark.parametrize("name", STRATEGY_NAMES)
def test_each_site_gets_one_message_with_the_weights(tmp_path: Path, name: str) -> None:
    messages = train_messages(study_with(tmp_path, name), {}, TASK, NODES)
    assert list(messages) == list(NODES)
    for site, message in messages.items():
        assert message.metadata.dst_node_id == NODES[site]
        task = TrainTask.from_content(message.content)
        assert np.array_equal(task.weights, START)
        assert task.correction is None


def test_scaffold_gives_each_site_its_own_correction(tmp_path: Path) -> None:
    study = study_with(tmp_path, "scaffold")
    _, kept = combined(study, cohort(3))
    messages = train_messages(study, kept, TASK, NODES)
    own = corrections(kept)
    got = {s: TrainTask.from_content(m.content).correction for s, m in messages.items()}
    assert got["site_09"] is None  # new: it has no control variate yet
    for site in ("site_00", "site_02"):
        assert np.array_equal(got[site], own[site])


def test_nobody_to_ask_gives_no_message(tmp_path: Path) -> None:
    assert train_messages(study_with(tmp_path, "scaffold"), {}, TASK, {}) == {}


def test_only_two_strategies_want_more_of_a_reply_than_weights(tmp_path: Path) -> None:
    forms = {name: reply_form(study_with(tmp_path, name)) for name in STRATEGY_NAMES}
    wanting = {name: form for name, form in forms.items() if form != ReplyForm()}
    assert wanting == {
        "qfedavg": ReplyForm(start_loss=True),
        "scaffold": ReplyForm(control=True),
    }
