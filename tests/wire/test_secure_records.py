"""Messages of secure sums: there and back, and what is refused of them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord

from nognet.errors import WireError
from nognet.wire.records import (
    MaskedTrainReply,
    MaskedTrainTask,
    SecureReply,
    SecureTask,
    TrainTask,
)
from nognet.wire.records.secure_rows import parse_rows, rows_text

TOKEN = "ab" * 16
ROWS = {"site_a": {"signature": b"\0\xff"}, "site_b": {"signature": b""}}
TASK = SecureTask("reveal", 3, "{}", TOKEN, TOKEN, TOKEN, ROWS)
REPLY = SecureReply("site_a", "agree", 3, TOKEN, ROWS)
WORDS = np.array([0, 2**32 - 1, 7], np.uint32)
MASKED = MaskedTrainReply("site_a", 3, TOKEN, WORDS, 1.5, 0.5, 1e-5)


def test_messages_come_back_as_they_were() -> None:
    assert SecureTask.from_content(TASK.to_content()) == TASK
    assert SecureReply.from_content(REPLY.to_content()) == REPLY
    plain = TrainTask(3, "{}", TOKEN, TOKEN, np.ones(2, np.float32))
    task = MaskedTrainTask(plain, TOKEN, {"site_b": {"sealed": b"x"}})
    back = MaskedTrainTask.from_content(task.to_content())
    assert (back.session, back.rows, back.task.run_token) == (TOKEN, task.rows, TOKEN)
    assert np.array_equal(back.task.weights, plain.weights)


@pytest.mark.parametrize("word", [np.uint32, np.uint64])
def test_masked_words_come_back_bit_by_bit(word: type) -> None:
    words = np.array([0, np.iinfo(word).max, 7], word)
    content = MaskedTrainReply("site_a", 3, TOKEN, words, 1.5).to_content()
    back = MaskedTrainReply.from_content(content, length=3, word=np.dtype(word))
    assert np.array_equal(back.words, words)
    assert (back.words.dtype, back.epsilon) == (word, None)


@pytest.mark.parametrize(
    "words",
    [
        np.zeros(4, np.uint32),
        np.zeros(3, np.uint64),
        np.zeros(3, np.float32),
        np.zeros((1, 3), np.uint32),
        np.zeros(3, np.dtype(">u4")),
    ],
)
def test_words_of_another_form_are_refused(words: Any) -> None:
    content = MASKED.to_content()
    content["arrays"] = ArrayRecord({"masked": Array(words)})
    with pytest.raises(WireError, match="words received"):
        MaskedTrainReply.from_content(content, length=3, word=np.dtype(np.uint32))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "7",
        '{"site_a": 7}',
        '{"site_a": []}',
        '{"Site A": {}}',
        '{"site_a": {"name": "00"}}',
        '{"site_a": {"signature": "zz"}}',
        '{"site_a": {"signature": 5}}',
        json.dumps({"site_a": {"signature": "00" * 257}}),
        json.dumps({f"site_{n}": {} for n in range(65)}),
        "[" * 100_000,
    ],
)
def test_rows_that_are_not_rows_are_refused(text: str) -> None:
    with pytest.raises(WireError, match="rows of a secure sum"):
        parse_rows(text, frozenset({"signature"}))


def test_equal_rows_have_equal_text() -> None:
    assert rows_text(ROWS) == rows_text(dict(reversed(ROWS.items())))
    assert parse_rows(rows_text(ROWS), frozenset({"signature"})) == ROWS


@pytest.mark.parametrize(
    "changes", [{"step": "train"}, {"step": "other"}, {"session": "x"}, {"more": 1}]
)
def test_texts_that_are_not_the_steps_own_are_refused(changes: dict[str, Any]) -> None:
    content = TASK.to_content()
    config = {**dict(content.config_records["config"].items()), **changes}
    content["config"] = ConfigRecord(config)
    with pytest.raises(WireError):
        SecureTask.from_content(content)
