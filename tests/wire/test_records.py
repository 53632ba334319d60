from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from nognet.errors import ContractError, WireError
from nognet.types import SPLITS
from nognet.wire.records import (
    EvaluateReply,
    EvaluateTask,
    JoinReply,
    JoinTask,
    ReplyForm,
    ShareReply,
    ShareTask,
    TrainReply,
    TrainTask,
    content_bytes,
)

LENGTH = 5
WEIGHTS = np.arange(LENGTH, dtype=np.float32)
TOKEN = "ab" * 16
COUNTS = {
    split: {"patients": 2, "pairs": 3, "strata": {"growing": 1, "stable": 2, "shrinking": 0}}
    for split in SPLITS
}
REPLY = TrainReply(
    site="site_a",
    round_number=3,
    weights=WEIGHTS,
    n_pairs=3,
    n_patients=2,
    steps=10,
    mean_loss=0.25,
    seconds=1.5,
)


def with_header(text: bytes) -> bytes:
    """Make `.npy` bytes with a header of any text."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + b"\0" * 4 * LENGTH


def claiming(length: int) -> bytes:
    """Make `.npy` bytes that claim a length they don't have."""
    buffer = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + b"\0" * 4 * LENGTH


def same(one: Any, other: Any) -> bool:
    """Compare two messages; arrays by their values."""
    pairs = [(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one)]
    return all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in pairs)


def changed(content: RecordDict, record: str, **values: Any) -> RecordDict:
    """Set keys of one record; None removes a key (underscores stand for hyphens)."""
    for name, value in values.items():
        key = name.replace("_", "-")
        if value is None:
            del content[record][key]
        else:
            content[record][key] = value  # type: ignore[index,assignment]  # a record of plain values
    return content


def train_task_content(task: TrainTask) -> RecordDict:
    arrays, config = task.to_records()
    return RecordDict({"arrays": arrays, "config": config})


def test_join_task_and_reply_survive_the_wire() -> None:
    task = JoinTask("{}", {"axes": "z, y, x"}, TOKEN)
    assert same(JoinTask.from_content(task.to_content()), task)
    refused = dataclasses.replace(task, refusal="no-training-pairs")
    assert same(JoinTask.from_content(refused.to_content()), refused)
    assert set(task.to_content()["config"]) == {"study", "contract", "run"}  # as releases before
    reply = JoinReply("site_a", {"torch": "2.13.0+cpu"}, {"axes": "z, y, x"}, COUNTS)
    assert same(JoinReply.from_content(reply.to_content()), reply)


def test_train_task_survives_the_wire_with_what_a_strategy_adds() -> None:
    task = TrainTask(3, "{}", "cd" * 32, TOKEN, WEIGHTS)
    content = train_task_content(task)
    content["config"]["proximal-mu"] = 0.1  # type: ignore[index,assignment]  # a record of plain values
    assert same(TrainTask.from_content(content), task)


@pytest.mark.parametrize(
    "reply",
    [
        REPLY,
        dataclasses.replace(REPLY, epsilon=1.5, delta=1e-5, mean_loss=None),
    ],
)
def test_train_reply_survives_the_wire(reply: TrainReply) -> None:
    assert same(TrainReply.from_content(reply.to_content(), length=LENGTH), reply)


def test_a_correction_survives_the_wire() -> None:
    task = TrainTask(3, "{}", "cd" * 32, TOKEN, WEIGHTS, correction=-WEIGHTS)
    assert same(TrainTask.from_content(train_task_content(task)), task)


def test_what_a_strategy_wants_of_a_reply_survives_the_wire() -> None:
    full = dataclasses.replace(REPLY, start_loss=0.5, control=-WEIGHTS)
    form = ReplyForm(control=True, start_loss=True)
    assert same(TrainReply.from_content(full.to_content(), length=LENGTH, form=form), full)


@pytest.mark.parametrize(
    ("values", "form"),
    [
        ({}, ReplyForm(control=True)),
        ({}, ReplyForm(start_loss=True)),
        ({"control": WEIGHTS}, ReplyForm()),
        ({"control": WEIGHTS}, ReplyForm(start_loss=True)),
    ],
)
def test_a_reply_of_another_form_than_wanted_is_refused(
    values: dict[str, Any], form: ReplyForm
) -> None:
    content = dataclasses.replace(REPLY, **values).to_content()
    with pytest.raises(WireError) as caught:
        TrainReply.from_content(content, length=LENGTH, form=form)
    assert caught.value.code == "keys"


@pytest.mark.parametrize("loss", [0.0, -1.0])
def test_a_loss_of_the_global_weights_that_is_not_above_zero_is_refused(loss: float) -> None:
    content = dataclasses.replace(REPLY, start_loss=loss).to_content()
    with pytest.raises(WireError) as caught:
        TrainReply.from_content(content, length=LENGTH, form=ReplyForm(start_loss=True))
    assert caught.value.code == "range"


def test_evaluate_task_and_reply_survive_the_wire() -> None:
    task = EvaluateTask(3, "test", "{}", "cd" * 32, TOKEN, WEIGHTS)
    assert same(EvaluateTask.from_content(task.to_content()), task)
    reply = EvaluateReply("site_a", 3, "test", {"copy|dsc|all|total": 1.5}, 0.5)
    assert same(EvaluateReply.from_content(reply.to_content()), reply)


def test_what_personal_models_need_survives_the_wire() -> None:
    task = EvaluateTask(3, "test", "{}", "cd" * 32, TOKEN, WEIGHTS, True, "site_b")
    assert same(EvaluateTask.from_content(task.to_content()), task)
    reply = EvaluateReply("site_a", 3, "test", {"visiting|dsc|all|total": 1.5}, 0.5, "site_b")
    assert same(EvaluateReply.from_content(reply.to_content()), reply)
    asked = ShareTask(3, "{}", "cd" * 32, TOKEN)
    assert same(ShareTask.from_content(asked.to_content()), asked)
    given = ShareReply("site_a", 3, WEIGHTS)
    assert same(ShareReply.from_content(given.to_content(), length=LENGTH), given)


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"personalise": 1}, "type"),
        ({"personalise": None}, "keys"),
        ({"model_of": "../site_b"}, "form"),
        ({"surprise": "x"}, "keys"),
    ],
)
def test_a_bad_word_on_personal_models_is_refused(values: dict[str, Any], code: str) -> None:
    task = EvaluateTask(3, "test", "{}", "cd" * 32, TOKEN, WEIGHTS)
    content = changed(task.to_content(), "config", **values)
    with pytest.raises(WireError) as caught:
        EvaluateTask.from_content(content)
    assert caught.value.code == code


def test_a_shared_model_of_another_length_or_with_more_records_is_refused() -> None:
    given = ShareReply("site_a", 3, WEIGHTS).to_content()
    with pytest.raises(WireError, match="shape"):
        ShareReply.from_content(given, length=LENGTH + 1)
    with pytest.raises(WireError, match="records"):
        ShareReply.from_content(RecordDict({**given, "more": MetricRecord()}), length=LENGTH)


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"n_pairs": 0, "n_patients": 0}, "no-examples"),
        ({"n_patients": 4}, "counts"),
        ({"n_pairs": -1}, "counts"),
        ({"n_pairs": 2.5}, "counts"),
        ({"n_pairs": 10**12}, "counts"),
        ({"loss": float("nan")}, "non-finite"),
        ({"loss": float("inf")}, "non-finite"),
        ({"seconds": -1.0}, "range"),
        ({"epsilon": -1.0}, "range"),
        ({"delta": 1.5}, "range"),
        ({"steps": None}, "keys"),
        ({"surprise": 1}, "keys"),
        ({"n_pairs": [1, 2]}, "type"),
    ],
)
def test_bad_numbers_of_a_train_reply_are_refused(values: dict[str, Any], code: str) -> None:
    content = changed(REPLY.to_content(), "metrics", **values)
    with pytest.raises(WireError) as caught:
        TrainReply.from_content(content, length=LENGTH)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("array", "code"),
    [
        (np.full(LENGTH, np.nan, np.float32), "non-finite"),
        (np.full(LENGTH, -np.inf, np.float32), "non-finite"),
        (np.zeros(LENGTH, np.float64), "dtype"),
        (np.zeros(LENGTH, np.int32), "dtype"),
        (np.zeros(LENGTH + 1, np.float32), "shape"),
        (np.zeros((LENGTH, 1), np.float32), "shape"),
    ],
)
@pytest.mark.parametrize("which", ["weights", "control"])
def test_bad_vectors_of_a_train_reply_are_refused(array: np.ndarray, code: str, which: str) -> None:
    content = REPLY.to_content()
    arrays = {"weights": Array(WEIGHTS), "control": Array(WEIGHTS), which: Array(array)}
    content["arrays"] = ArrayRecord(arrays)
    with pytest.raises(WireError) as caught:
        TrainReply.from_content(content, length=LENGTH, form=ReplyForm(control=True))
    assert caught.value.code == code


@pytest.mark.parametrize(
    "array",
    [
        Array("float32", (LENGTH,), "numpy.ndarray", b"not numpy"),
        Array("float32", (LENGTH,), "something.else", b""),
        Array("float32", (LENGTH,), "numpy.ndarray", Array(WEIGHTS).data[:-1]),
        Array("float32", (LENGTH,), "numpy.ndarray", Array(np.zeros(9, np.float32)).data),
        Array("float32", (LENGTH,), "numpy.ndarray", Array(np.zeros(LENGTH, np.int64)).data),
        Array("float32", (LENGTH,), "numpy.ndarray", claiming(10**15)),
        Array("float32", (LENGTH,), "numpy.ndarray", with_header(b"-" * 4900 + b"1\n")),
    ],
)
def test_an_array_that_is_not_what_it_declares_is_refused(array: Array) -> None:
    content = REPLY.to_content()
    content["arrays"] = ArrayRecord({"weights": array})
    with pytest.raises(WireError):
        TrainReply.from_content(content, length=LENGTH)


def test_records_that_are_missing_unknown_or_of_another_kind_are_refused() -> None:
    without = REPLY.to_content()
    del without["arrays"]
    more = REPLY.to_content()
    more["more"] = MetricRecord({"a": 1})
    other = REPLY.to_content()
    other["metrics"] = ConfigRecord({"n-pairs": 1})
    for content in (without, more, other):
        with pytest.raises(WireError) as caught:
            TrainReply.from_content(content, length=LENGTH)
        assert caught.value.code == "records"


@pytest.mark.parametrize("name", ["", "Site A", "../etc", "a" * 65, "x\n"])
def test_a_site_name_that_is_none_is_refused(name: str) -> None:
    content = changed(REPLY.to_content(), "config", site=name)
    with pytest.raises(WireError):
        TrainReply.from_content(content, length=LENGTH)


@pytest.mark.parametrize("value", ["3", 3.0, -1, True])
def test_a_round_that_is_none_is_refused(value: Any) -> None:
    content = changed(REPLY.to_content(), "config", server_round=value)
    with pytest.raises(WireError):
        TrainReply.from_content(content, length=LENGTH)


def test_texts_beside_the_allowed_ones_are_refused() -> None:
    content = changed(REPLY.to_content(), "config", note="Anna Miller")
    with pytest.raises(WireError) as caught:
        TrainReply.from_content(content, length=LENGTH)
    assert caught.value.code == "keys"


def test_bad_join_replies_are_refused() -> None:
    reply = JoinReply("site_a", {"torch": "2.13"}, {"axes": "z, y, x"}, COUNTS)
    with pytest.raises(WireError):
        JoinReply.from_content(changed(reply.to_content(), "config", versions='{"a": "b c"}'))
    with pytest.raises(ContractError):
        JoinReply.from_content(changed(reply.to_content(), "config", contract="[]"))
    with pytest.raises(WireError):
        JoinReply.from_content(changed(reply.to_content(), "config", versions="[" * 100_000))
    missing = reply.to_content()
    del missing["metrics"]["train|pairs"]  # type: ignore[attr-defined]  # a record of plain values
    with pytest.raises(WireError):
        JoinReply.from_content(missing)


def test_an_evaluation_of_an_unknown_split_or_without_statistics_is_refused() -> None:
    reply = EvaluateReply("site_a", 3, "test", {"copy|dsc|all|total": 1.5}, 0.5)
    with pytest.raises(WireError):
        EvaluateReply.from_content(changed(reply.to_content(), "config", split="everything"))
    with pytest.raises(WireError) as caught:
        EvaluateReply.from_content(dataclasses.replace(reply, statistics={}).to_content())
    assert caught.value.code == "no-examples"


def test_the_payload_counts_the_weights() -> None:
    assert 4 * LENGTH <= content_bytes(REPLY.to_content()) <= 4 * LENGTH + 600
