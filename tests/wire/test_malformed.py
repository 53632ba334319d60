from __future__ import annotations

import contextlib
from collections.abc import Mapping

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.app.message import make_message
from flwr.app.metadata import Metadata
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from hypothesis import given, settings
from hypothesis import strategies as st

from nognet.wire.records import MALFORMED


def parts() -> tuple[str, Mapping[str, bytes]]:
    """Make a message as it travels: its own name, and its parts by name."""
    records = {
        "arrays": ArrayRecord({"weights": Array(np.arange(5, dtype=np.float32))}),
        "config": ConfigRecord({"site": "site_a", "server-round": 3}),
        "metrics": MetricRecord({"seconds": 1.5}),
    }
    metadata = Metadata(1, "", 2, 3, "", "", 1.0, 60.0, "train")
    message = make_message(metadata, RecordDict(records))
    whole = {name: part.deflate() for name, part in get_all_nested_objects(message).items()}
    return message.object_id, whole


NAME, WHOLE = parts()
EDITS = st.lists(
    st.tuples(
        st.sampled_from(sorted(WHOLE)),
        st.sampled_from(["flip", "cut", "insert", "another's", "gone"]),
        st.integers(0, 2**16),
        st.binary(max_size=8),
    ),
    min_size=1,
    max_size=4,
)


def edited(content: bytes, how: str, place: int, extra: bytes) -> bytes:
    at = place % (len(content) + 1)
    if how == "flip":
        return content[:at] + bytes(b ^ 0x5A for b in content[at : at + 1]) + content[at + 1 :]
    if how == "cut":
        return content[:at]
    if how == "insert":
        return content[:at] + extra + content[at:]
    return sorted(WHOLE.values())[place % len(WHOLE)]


@settings(max_examples=400)
@given(edits=EDITS)
def test_whatever_comes_in_place_of_a_message_is_named(edits: list[tuple]) -> None:
    given_parts = dict(WHOLE)
    for name, how, place, extra in edits:
        if how == "gone":
            given_parts.pop(name, None)
        elif name in given_parts:
            given_parts[name] = edited(given_parts[name], how, place, extra)
    with contextlib.suppress(*MALFORMED):  # any other error fails this test
        inflate_object_from_contents(NAME, given_parts)


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_a_part_that_is_away_is_malformed(name: str) -> None:
    left = {other: content for other, content in WHOLE.items() if other != name}
    with pytest.raises(MALFORMED):
        inflate_object_from_contents(NAME, left)
