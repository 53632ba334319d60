"""Data to stdout, words to stderr, errors as exit codes."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from nognet.console import (
    LogFormat,
    emit,
    redirect_to_json,
    run_guarded,
    say,
    set_up_logging,
)
from nognet.errors import ConfigError, GeometryError, NognetError, PrivacyBudgetError


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    logger, hook = logging.getLogger("nognet"), sys.excepthook
    root, others = logging.getLogger(), logging.getLogger().handlers[:]
    root.handlers.clear()
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    for handler in logger.handlers:
        handler.close()
    logger.handlers[:], logger.level, logger.propagate = before
    sys.excepthook = hook
    logging.captureWarnings(capture=False)
    root.handlers[:] = others
    warned = logging.getLogger("py.warnings")
    warned.handlers.clear()
    warned.propagate = True


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


def _small_command() -> typer.Typer:
    app = typer.Typer(add_completion=False)

    @app.command()
    def small(port: int = 1, log_format: LogFormat = LogFormat.text) -> None:
        set_up_logging(log_format)
        if port == 3:
            raise typer.BadParameter("not this one")
        if port == 4:
            raise ConfigError("wrong")
        if port == 5:
            raise KeyboardInterrupt
        raise typer.Exit(port)

    return app


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (["--prot", "7"], 2, "No such option"),
        (["--port", "seven"], 2, "'seven' is not a valid int"),
        (["--port", "3"], 2, "not this one"),
        (["--port", "4"], 3, "wrong"),
        (["--port", "5"], 130, ""),
        (["--port", "7"], 7, ""),
        (["--port", "0"], 0, ""),
    ],
)
@pytest.mark.parametrize("as_json", [["--log-format", "json"], ["--log-format=json"]])
def test_a_wrong_command_line_is_a_line_of_the_json_log(
    arguments: list[str],
    exit_code: int,
    words: str,
    as_json: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["small", *arguments, *as_json])
    with pytest.raises(SystemExit) as ended:
        run_guarded(_small_command())
    assert ended.value.code == exit_code
    out, err = capsys.readouterr()
    assert out == ""
    entries = [json.loads(line) for line in err.splitlines()]
    assert len(entries) == bool(words)
    for entry in entries:
        assert (entry["level"], entry["exit_code"]) == ("error", exit_code)
        assert words in entry["message"]


def test_a_wrong_command_line_without_json_is_told_to_people(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["small", "--prot", "7", "--log-format", "text"])
    with pytest.raises(SystemExit) as ended:
        run_guarded(_small_command())
    assert ended.value.code == 2
    assert "Usage" in capsys.readouterr().err


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


def json_lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_run_round_and_site_are_told_where_they_are_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_up_logging(LogFormat.json, fields={"site": "hospital_a"})
    log = logging.getLogger("nognet.client")
    log.info("training, round %d", 3)
    log.info("around 5 minutes left")
    log.info("round 2 is done", extra={"round": 7, "run": "demo"})
    first, second, third = json_lines(capsys)
    assert (first["site"], first["round"]) == ("hospital_a", 3)
    assert "round" not in second
    assert (third["round"], third["run"]) == (7, "demo")


def test_words_and_errors_are_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(LogFormat.json)

    def fail() -> None:
        say("runs/demo/report.html")
        raise ConfigError("two\nlines")

    with pytest.raises(SystemExit) as ended:
        run_guarded(fail)
    assert ended.value.code == 3
    said, failed = json_lines(capsys)
    assert (said["level"], said["message"]) == ("info", "runs/demo/report.html")
    assert (failed["level"], failed["message"], failed["exit_code"]) == ("error", "two\nlines", 3)


def test_tracebacks_and_warnings_are_one_json_line_each(
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_up_logging(LogFormat.json)
    try:
        int("x")
    except ValueError:
        logging.getLogger("nognet").exception("it failed")
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]  # an exception is set
    logging.getLogger("py.warnings").warning("deprecated")
    logged, uncaught, warned = json_lines(capsys)
    assert "ValueError" in str(logged["exception"])
    assert uncaught["level"] == "critical"
    assert warned["logger"] == "py.warnings"


def test_a_file_gets_json_lines_beside_text_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_logging(LogFormat.text, file=tmp_path / "logs" / "server.log", fields={"run": "demo"})
    logging.getLogger("nognet").info("round 1 of 2: training")
    assert "INFO    round 1" in capsys.readouterr().err
    (line,) = (tmp_path / "logs" / "server.log").read_text(encoding="utf-8").splitlines()
    assert (json.loads(line)["run"], json.loads(line)["round"]) == ("demo", 1)


def test_other_libraries_write_json_to_a_childs_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # given back at the end
    redirect_to_json(("some.library",), {"site": "hospital_a"})
    logger = logging.getLogger("some.library")
    logger.setLevel(logging.DEBUG)
    logger.debug("hidden")
    logger.warning("a line")
    typer.echo("printed")
    logger.handlers.clear()
    logging.getLogger("stdout").handlers.clear()
    lines = capsys.readouterr().out.splitlines()
    entry, printed = (json.loads(line) for line in lines)
    assert (printed["logger"], printed["message"]) == ("stdout", "printed")
    assert (entry["logger"], entry["site"], entry["level"]) == (
        "some.library",
        "hospital_a",
        "warning",
    )
