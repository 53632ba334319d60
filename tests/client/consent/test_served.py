from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nognet_client.consent.served import (
    Book,
    Run,
    Served,
    ServedRecord,
    runs_on_disk,
    with_run,
)

from nognet.errors import ConsentError
from nognet.privacy.accounting import NoisedSteps

STEPS = NoisedSteps(1.1, 0.25, 7)


def counted(book: Book, study: str, digest: str) -> Book:
    served = book.of(study).then("rounds", digest, STEPS)
    return replace(book, studies={**book.studies, study: served})


def test_what_was_counted_is_read_again(tmp_path: Path) -> None:
    record = ServedRecord(tmp_path)
    assert record.read() == Book()
    record.change(lambda book: with_run(counted(book, "lung", "aa"), "run1", Run("d1", "1.0")))
    found = ServedRecord(tmp_path).read()
    assert found.runs == {"run1": Run("d1", "1.0")}
    assert found.of("lung").rounds == 1
    assert found.of("lung").noised.entries == (STEPS,)
    assert found.of("lung").is_counted("rounds", "aa")
    assert not found.of("lung").is_counted("evaluations", "aa")
    assert found.of("other") == Served()
    assert record.path.stat().st_mode & 0o077 == 0
    assert record.path.parent.stat().st_mode & 0o077 == 0  # nor may others hold its lock


@given(st.lists(st.sampled_from(["rounds", "evaluations"]), max_size=20))
def test_each_kind_is_counted_apart(kinds: list[str]) -> None:
    served = Served()
    for i, kind in enumerate(kinds):
        served = served.then(kind, str(i), STEPS if kind == "rounds" else None)  # type: ignore[arg-type]  # drawn from both
    assert served.rounds == kinds.count("rounds")
    assert served.evaluations == kinds.count("evaluations")
    assert served.noised.steps == 7 * served.rounds


def test_processes_side_by_side_forget_none(tmp_path: Path) -> None:
    def ten_rounds(name: str) -> None:
        for i in range(10):
            ServedRecord(tmp_path).change(lambda book, i=i: counted(book, "lung", f"{name}{i}"))

    threads = [threading.Thread(target=ten_rounds, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ServedRecord(tmp_path).read().of("lung").rounds == 30


def test_the_task_of_a_runs_own_model_is_read_again_and_kept_over_a_new_release(
    tmp_path: Path,
) -> None:
    record = ServedRecord(tmp_path)
    made = Run("d1", "1.0", personalised="ee")
    record.change(lambda book: with_run(book, "run1", made))
    assert ServedRecord(tmp_path).read().runs == {"run1": made}
    text = record.path.read_text().replace(',\n   "personalised": "ee"', "")
    record.path.write_text(text)  # as it was before there was such a thing
    assert record.read().runs == {"run1": Run("d1", "1.0")}


def test_runs_of_an_earlier_record_have_no_release(tmp_path: Path) -> None:
    record = ServedRecord(tmp_path)
    record.path.parent.mkdir()
    record.path.write_text('{"version": 1, "studies": {}, "runs": {"run1": "d1"}}')
    assert record.read().runs == {"run1": Run("d1")}


NEGATIVE = (
    '{"version": 1, "runs": {}, "studies": '
    '{"a": {"rounds": -1, "evaluations": 0, "noised": [], "last": {}}}}'
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"version": 3, "studies": {}, "runs": {}}',
        NEGATIVE,
        NEGATIVE.replace("-1", "1").replace(
            "[]", '[{"noise_multiplier": 0, "sample_rate": 1, "steps": 1}]'
        ),
        '{"version": 1, "studies": {"a": {"rounds": 1}}, "runs": {}}',
    ],
)
def test_a_damaged_record_is_never_read_as_nothing_done(tmp_path: Path, text: str) -> None:
    record = ServedRecord(tmp_path)
    record.path.parent.mkdir()
    record.path.write_text(text)
    for use in (record.read, lambda: record.change(lambda book: book)):
        with pytest.raises(ConsentError, match="restore it from a backup") as found:
            use()
        assert found.value.code == "consent-record"
    assert record.path.read_text() == text


def test_a_record_that_cannot_be_written_stops_the_task(tmp_path: Path) -> None:
    (tmp_path / "consent").write_text("a file in the way of the folder")
    with pytest.raises(ConsentError, match="nothing was done") as found:
        ServedRecord(tmp_path).change(lambda book: counted(book, "lung", "aa"))
    assert found.value.code == "consent-record"


def test_the_last_runs_are_remembered(tmp_path: Path) -> None:
    record = ServedRecord(tmp_path)
    for number in range(70):
        record.change(lambda book, number=number: with_run(book, f"run{number}", Run("d")))
    runs = json.loads(record.path.read_text())["runs"]
    assert len(runs) == 64
    assert "run69" in runs
    assert "run5" not in runs


def test_a_run_that_left_something_on_disk_is_not_forgotten_for_others(tmp_path: Path) -> None:
    """Whoever joins under many names would have its study changed under what is kept of it."""
    (tmp_path / "personal" / "run1").mkdir(parents=True)
    (tmp_path / "secure" / "run2").mkdir(parents=True)
    book = Book()
    for number in range(200):
        book = with_run(book, f"run{number}", Run(str(number)), on_disk=runs_on_disk(tmp_path))
    last = [f"run{number}" for number in range(136, 200)]
    assert [*book.runs] == ["run1", "run2", *last]
