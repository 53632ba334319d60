"""Counts of patients on the wire: there, or withheld by a mark; never both, never neither."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nognet.errors import WireError
from nognet.types import SPLITS, STRATA
from nognet.wire.fields import flat_counts, nested_counts

count = st.one_of(st.none(), st.integers(0, 1000))
counts = st.fixed_dictionaries(
    {
        split: st.fixed_dictionaries(
            {
                "patients": count,
                "pairs": count,
                "strata": st.fixed_dictionaries(dict.fromkeys(STRATA, count)),
            }
        )
        for split in SPLITS
    }
)


@given(counts)
def test_counts_come_back_as_they_were_sent(sent: Any) -> None:
    assert nested_counts(flat_counts(sent)) == sent


@pytest.mark.parametrize(
    "change",
    [
        {"train|pairs": 3, "train|pairs|withheld": 1},
        {"train|pairs": 3, "train|Miller|withheld": 1},
        {},
    ],
)
def test_a_count_is_there_or_withheld(change: dict[str, int]) -> None:
    whole = {"patients": 1, "pairs": 1, "strata": dict.fromkeys(STRATA, 0)}
    flat = flat_counts(dict.fromkeys(SPLITS, whole))
    del flat["train|pairs"]
    with pytest.raises(WireError):
        nested_counts({**flat, **change})
