"""Who is charged what: against a naive sum over each patient alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nognet.privacy.accounting import NoisedSteps, PrivacyHistory
from nognet.privacy.ledger_entries import (
    DataSet,
    Entry,
    charged_rounds,
    histories_of,
    histories_of_all,
)
from tests.builders.ledgers import data_set, purpose

_patients = st.sets(st.sampled_from("abcdef"), max_size=4)
_rows = st.lists(
    st.tuples(_patients, st.sampled_from([1.0, 2.0]), st.integers(1, 4), st.sampled_from("kl")),
    max_size=6,
)


def entry(number: int, data: DataSet, steps: NoisedSteps, *, run: str = "r") -> Entry:
    about = purpose(number, run=run)
    return Entry(number, data, about, steps, 1e-3, 0.0, 1.0, "taken", "2026-01-01", "0")


def made(rows: list[tuple[set[str], float, int, str]]) -> list[Entry]:
    return [
        entry(i + 1, DataSet(str(i), frozenset(who), key), NoisedSteps(noise, 0.1, n))
        for i, (who, noise, n, key) in enumerate(rows)
    ]


def totals(history: PrivacyHistory) -> tuple[int, int]:
    """Steps by noise, 1 and 2: the naive account of one patient."""
    steps = {1.0: 0, 2.0: 0}
    for item in history.entries:
        steps[item.noise_multiplier] += item.steps
    return steps[1.0], steps[2.0]


def naive(entries: list[Entry], patient: str, key: str) -> tuple[int, int]:
    found = {1.0: 0, 2.0: 0}
    for e in entries:
        unknown = len(e.data.patients) == 0 or e.data.key != key
        if unknown or patient in e.data.patients:
            found[e.steps.noise_multiplier] += e.steps.steps
    return found[1.0], found[2.0]


@given(rows=_rows, who=st.sets(st.sampled_from("abcdef"), min_size=1, max_size=4))
def test_every_patients_own_sum_is_covered_and_nothing_is_made_up(
    rows: list[tuple[set[str], float, int, str]], who: set[str]
) -> None:
    entries = made(rows)
    own = {naive(entries, patient, "k") for patient in who}
    found = {totals(h) for h in histories_of(entries, data_set(*who))}
    assert found <= own
    for one, two in own:
        assert any(one <= a and two <= b for a, b in found)


@given(rows=_rows)
def test_the_balance_covers_everybody_ever_charged(
    rows: list[tuple[set[str], float, int, str]],
) -> None:
    entries = made(rows)
    found = {totals(h) for h in histories_of_all(entries)}
    for e in entries:
        for patient in e.data.patients or {"anybody"}:
            one, two = naive(entries, patient, e.data.key)
            assert any(one <= a and two <= b for a, b in found)
    assert bool(found) == bool(entries)


def test_rounds_of_a_run_are_told_apart_from_those_of_others() -> None:
    steps = NoisedSteps(1.0, 0.1, 1)
    entries = [entry(n, data_set("a"), steps, run="rs"[n % 2]) for n in range(1, 6)]
    assert charged_rounds(entries, "r") == {2, 4}
    assert charged_rounds(entries, "none") == frozenset()
