"""Long events: cut, but never so that the next one is lost."""

from __future__ import annotations

import pytest

from nognet.supervision.events import EventPipe, EventWriter


@pytest.mark.parametrize("character", ["a", '"', "\u00e4", "\U0001f600"])
def test_an_event_after_a_long_one_arrives(character: str) -> None:
    pipe = EventPipe()
    try:
        writer = EventWriter(pipe.write_end)
        writer.send("refused", character * 10_000)
        writer.send("task-ended", code=3)
        first, second = pipe.drain()
    finally:
        pipe.close()
    assert first.kind == "refused"
    assert set(first.text) == {character}
    assert (second.kind, second.values) == ("task-ended", {"code": 3})
