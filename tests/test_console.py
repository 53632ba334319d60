"""Data to stdout, words to stderr, errors as exit codes."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from nognet.console import LogFormat, emit, run_guarded, say, set_up_logging
from nognet.errors import ConfigError, GeometryError, NognetError, PrivacyBudgetError


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    logger = logging.getLogger("nognet")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def test_data_goes_to_stdout_and_words_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    emit("data")
    say("words")
    assert capsys.readouterr() == ("data\n", "words\n")


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (NognetError("x"), 1),
        (ConfigError("x"), 3),
        (GeometryError("x"), 5),
        (PrivacyBudgetError("x"), 11),
        (KeyboardInterrupt(), 130),
    ],
)
def test_our_errors_and_interrupts_become_exit_codes_without_a_traceback(
    error: BaseException, exit_code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_guarded(fail)
    assert ended.value.code == exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("nognet: ")
    assert "Traceback" not in err


def test_an_error_that_is_not_ours_is_left_to_show_its_traceback() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_guarded(fail)


def test_a_command_that_works_just_returns() -> None:
    done: list[int] = []
    run_guarded(lambda: done.append(1))
    assert done == [1]


def test_text_logs_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(LogFormat.text)
    logging.getLogger("nognet.data").info("read %d series", 3)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.rstrip().endswith("INFO    read 3 series")


def test_json_logs_are_one_object_a_line_whatever_the_message(
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_up_logging(LogFormat.json)
    logging.getLogger("nognet.fit").warning('a "quoted"\nline')
    logging.getLogger("nognet").info("second")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["level"], first["logger"]) == ("warning", "nognet.fit")
    assert first["message"] == 'a "quoted"\nline'
    assert second["message"] == "second"
    assert set(first) == {"time", "level", "logger", "message"}


def test_setting_up_twice_logs_each_line_once(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging()
    set_up_logging()
    logging.getLogger("nognet").info("once")
    assert capsys.readouterr().err.count("once") == 1


def test_the_level_is_respected(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(level=logging.WARNING)
    logging.getLogger("nognet").info("hidden")
    logging.getLogger("nognet").warning("shown")
    err = capsys.readouterr().err
    assert "hidden" not in err
    assert "shown" in err
