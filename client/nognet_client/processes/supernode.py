"""Flower's SuperNode with our connection, short waits, and an end that is an end.

Run by the supervisor as ``python -m nognet_client.processes.supernode --parent PID ...``. In Flower
1.41 the process lives on when the SuperNode's loop has ended, offline for ever; a reply that could
not be handed over is dropped without a word to the coordinator, which waits for its rest for three
minutes; and a reply whose task died before all parts were brought is waited for without end. Here
the process ends in each case, and the supervisor starts it again: then the
coordinator asks again at once, and the site answers from its kept reply.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from nognet.console import LogFormat, redirect_to_json
from nognet.supervision.children import parse_parent
from nognet.supervision.events import EventWriter
from nognet.supervision.parent import die_with_parent
from nognet_client.processes import flower_internals as flower
from nognet_client.processes.link import Link, site_client

EXIT_LOOP_ENDED = 75
EXIT_RUN_ENDED = 76
EXIT_FATAL = 12
BUSY_POLL_S = 0.1
IDLE_POLL_S = (0.2, 1.0)
"""Seconds between looks for a task: right after the last one, and after a minute without."""
FLOWER_IDLE_S = 3.0
PART_WITHIN_S = 15.0
"""A part of a reply comes from the task's process over loopback, in moments; or never."""


def poll_wait_s(asked_s: float, idle_s: float) -> float:
    """Choose how long to wait where Flower would wait `asked_s`.

    >>> poll_wait_s(0.5, 0.0), poll_wait_s(3.0, 1.0), poll_wait_s(3.0, 600.0)
    (0.1, 0.2, 1.0)
    """
    if asked_s < FLOWER_IDLE_S:
        return BUSY_POLL_S
    soon, late = IDLE_POLL_S
    return soon if idle_s < 60.0 else late


def main() -> None:
    """Run the SuperNode until its loop ends; the flags after ``--`` are flower-supernode's own."""
    parent, arguments = parse_parent(sys.argv[1:])
    die_with_parent(parent)
    split = arguments.index("--")
    parser = argparse.ArgumentParser()
    for name in ("--events", "--node-id-file", "--log-format", "--site"):
        parser.add_argument(name, required=True)
    parser.add_argument("--insecure", action="store_true")
    options = parser.parse_args(arguments[:split])
    if LogFormat(options.log_format) is LogFormat.json:
        flower.leave_uvicorns_log_alone()
        redirect_to_json(flower.LOGGERS, {"site": options.site})
    events = EventWriter(int(options.events))
    link = Link(
        events,
        Path(options.node_id_file),
        leave=lambda: _leave(EXIT_FATAL),
        drop=lambda: _leave(EXIT_RUN_ENDED),
    )
    flower.use_fleet_client(site_client(link, insecure=options.insecure))
    flower.use_sleep(lambda seconds: _wait(link, seconds))
    flower.guard_pulls(lambda pull: _pull_whole_or_leave(pull, link))
    flower.watch_pushes(lambda: _leave(EXIT_LOOP_ENDED), PART_WITHIN_S)
    flower.shorten_object_waits()
    flower.shorten_retry_waits()
    sys.argv = ["flower-supernode", *arguments[split + 1 :]]
    flower.flower_supernode()
    _leave(EXIT_LOOP_ENDED)


def _wait(link: Link, asked_s: float) -> None:
    """Wait where Flower would wait `asked_s`; it waits shortly while a task is at work."""
    if asked_s < FLOWER_IDLE_S:
        link.look_at_run()
    time.sleep(poll_wait_s(asked_s, time.monotonic() - link.last_message_at))


def _pull_whole_or_leave(pull: Callable[[], int | None], link: Link) -> int | None:
    """Pull a task; end the process where one was begun and not got whole (its run was stopped).

    Flower keeps the task of such a message: the worker would wait a minute for its parts, and the
    answer to the next message would be held back behind it.
    """
    link.message_in_hand = False
    run = pull()
    if run is None and link.message_in_hand:
        _leave(EXIT_LOOP_ENDED)
    return run


def _leave(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the thread of the Runtime API would keep the process alive


if __name__ == "__main__":
    main()
