"""What all commands share: data to stdout, words to stderr, errors as messages with exit codes."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

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
VersionOption = Annotated[
    bool,
    typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
]


class _JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        return json.dumps(entry)


def set_up_logging(log_format: LogFormat = LogFormat.text, level: int = logging.INFO) -> None:
    """Send the log of `nognet` to stderr, as text or as one JSON object a line."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
    handler.setFormatter(_JsonFormatter() if log_format is LogFormat.json else text)
    logger = logging.getLogger("nognet")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


def say(message: str) -> None:
    """Print a line for people to stderr, above a bar that is drawn there."""
    sys.stderr.write(f"{message}\n")  # not typer.echo: it finds the stream below a bar's own
    sys.stderr.flush()


def emit(text: str) -> None:
    """Print data to stdout."""
    typer.echo(text)


def run_guarded(command: Callable[[], object]) -> None:
    """Run a command; turn our errors and Ctrl-C into a message and an exit code, never a traceback.

    Errors that are not ours keep their traceback: they are defects of nognet, and say so.
    """
    try:
        command()
    except NognetError as err:
        say(f"nognet: {err}")
        sys.exit(err.exit_code)
    except KeyboardInterrupt:
        say("nognet: interrupted")
        sys.exit(INTERRUPTED_EXIT_CODE)
