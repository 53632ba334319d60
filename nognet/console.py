"""What all commands share: data to stdout, words to stderr, errors as messages with exit codes."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, NoReturn

import click
import typer

import nognet
from nognet.errors import INTERRUPTED_EXIT_CODE, NognetError


class LogFormat(StrEnum):
    """How log lines look on stderr."""

    text = "text"
    json = "json"


def _print_version(wanted: bool) -> None:
    if wanted:
        emit(nognet.__version__)
        raise typer.Exit


LogFormatOption = Annotated[LogFormat, typer.Option(help="How log lines look on stderr.")]
HealthPortOption = Annotated[
    int | None,
    typer.Option(min=1, max=65535, help="Serve grpc.health.v1 on this port of 127.0.0.1."),
]
VersionOption = Annotated[
    bool,
    typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
]


LOG_FIELDS = ("run", "round", "site", "exit_code")
"""What a JSON line tells besides, where it is known: given for the process, or with a record."""
_PRINTED = "stdout"
_ROUND = re.compile(r"\bround (\d+)\b")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message; run, round and site where known.

    Args:
        fields: What holds for every line of this process.
    """

    def __init__(self, fields: Mapping[str, str | int] | None = None) -> None:
        super().__init__()
        self.fields = dict(fields or {})

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as a line."""
        message = record.getMessage()
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
            **self.fields,
        }
        if found := _ROUND.search(message):
            entry["round"] = int(found.group(1))
        given = {name: getattr(record, name) for name in LOG_FIELDS if hasattr(record, name)}
        if record.exc_info:
            given["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry | given)


def set_up_logging(
    log_format: LogFormat = LogFormat.text,
    level: int = logging.INFO,
    *,
    fields: Mapping[str, str | int] | None = None,
    file: Path | None = None,
) -> None:
    """Send the log of `nognet` to stderr, as text or as one JSON object a line.

    Args:
        log_format: How lines look on stderr.
        level: Below it, nothing is shown.
        fields: What every JSON line tells besides, for example run and site.
        file: A file that gets the same lines as JSON, whatever the format on stderr.
    """
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
    as_json = log_format is LogFormat.json
    handler.setFormatter(JsonFormatter(fields) if as_json else text)
    handlers = [handler]
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(file, encoding="utf-8"))
        handlers[-1].setFormatter(JsonFormatter(fields))
    logger = logging.getLogger("nognet")
    for old in logger.handlers:
        old.close()
    logger.handlers[:] = handlers
    logger.setLevel(level)
    logger.propagate = False
    if as_json:
        _catch_the_rest(handler)
        logging.captureWarnings(capture=True)
        warned = logging.getLogger("py.warnings")
        warned.handlers[:], warned.propagate = [handler], False


def _catch_the_rest(handler: logging.Handler) -> None:
    """Let what no logger of ours writes be JSON too: other libraries' warnings, a traceback."""
    sys.excepthook = _log_uncaught
    if not logging.getLogger().handlers:
        logging.getLogger().addHandler(handler)


def _log_uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    logging.getLogger("nognet").critical(
        "a defect of nognet: %s", kind.__name__, exc_info=(kind, error, traceback)
    )


class _PrintedLines(io.TextIOBase):
    """A stdout whose lines become records."""

    def __init__(self) -> None:
        super().__init__()
        self._rest = ""

    def write(self, text: str) -> int:
        """Log each line that is complete."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in filter(None, lines):
            logging.getLogger(_PRINTED).info("%s", line)
        return len(text)


def redirect_to_json(names: tuple[str, ...], fields: Mapping[str, str | int] | None = None) -> None:
    """Let all that a child writes to stdout, its log file, be JSON lines: loggers and prints.

    Args:
        names: Loggers of other libraries.
        fields: What every line tells besides.
    """
    handler = logging.StreamHandler(sys.stdout)
    handler.setLevel(logging.INFO)  # Flower's loggers are open for all, its handlers are not
    handler.setFormatter(JsonFormatter(fields))
    _catch_the_rest(handler)
    for name in (*names, _PRINTED):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
    logging.getLogger(_PRINTED).setLevel(logging.INFO)
    sys.stdout = _PrintedLines()


def _writes_json() -> bool:
    handlers = logging.getLogger("nognet").handlers
    return bool(handlers) and isinstance(handlers[0].formatter, JsonFormatter)


def say(message: str) -> None:
    """Print a line for people to stderr, above a bar that is drawn there; or log it as JSON."""
    if _writes_json():
        logging.getLogger("nognet").info("%s", message)
        return
    with contextlib.suppress(OSError):  # the terminal was closed: what is to be done is done
        sys.stderr.write(f"{message}\n")  # not typer.echo: it finds the stream below a bar's own
        sys.stderr.flush()


def emit(text: str) -> None:
    """Print data to stdout."""
    typer.echo(text)


def run_guarded(command: Callable[..., object]) -> None:
    """Run a command; turn our errors and Ctrl-C into a message and an exit code, never a traceback.

    Errors that are not ours keep their traceback: they are defects of nognet, and say so. Where the
    log is to be JSON, a wrong command line is a line of it, and no box.
    """
    try:
        if isinstance(command, typer.Typer) and _asks_for_json(sys.argv[1:]):
            code = command(standalone_mode=False)
            sys.exit(code if isinstance(code, int) else 0)
        command()
    except click.UsageError as err:
        set_up_logging(LogFormat.json)  # what is wrong was found before the command set it up
        _end_with(err.format_message(), err.exit_code)
    except NognetError as err:
        _end_with(str(err), err.exit_code)
    except KeyboardInterrupt:
        _end_with("interrupted", INTERRUPTED_EXIT_CODE)


def _asks_for_json(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for JSON lines, be the rest of it right or wrong.

    >>> _asks_for_json(["--log-format", "json", "--stduy"]), _asks_for_json(["--log-format=text"])
    (True, False)
    """
    return "--log-format=json" in arguments or ("--log-format", "json") in pairwise(arguments)


def _end_with(message: str, exit_code: int) -> NoReturn:
    if _writes_json():
        logging.getLogger("nognet").error("%s", message, extra={"exit_code": exit_code})
    else:
        say(f"nognet: {message}")
    sys.exit(exit_code)
