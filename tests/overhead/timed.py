"""Seconds of one piece of work."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Given = TypeVar("Given")


def timed(work: Callable[[], Given]) -> tuple[float, Given]:
    """Do a piece of work; give its seconds and its result."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result
