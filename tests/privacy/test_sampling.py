"""Poisson sampling: rate, independence, one pair a patient."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nognet.errors import PrivacyError
from nognet.privacy.sampling import PatientGroups, group_by_patient, sample_rate
from nognet.privacy.secret import SecretStream

MIN_P = 1e-4


def _groups(*sizes: int) -> PatientGroups[tuple[int, int]]:
    return PatientGroups(tuple(tuple((p, k) for k in range(n)) for p, n in enumerate(sizes)))


def test_every_patient_takes_part_at_the_rate_whatever_its_number_of_pairs() -> None:
    sizes, steps, rate = (1, 20, 1, 3, 7), 4000, 0.13
    stream, groups = SecretStream.for_tests(1), _groups(*sizes)
    drawn = np.zeros(len(sizes), dtype=int)
    for _ in range(steps):
        for ((patient, _pair),) in groups.draw(rate, stream):
            drawn[patient] += 1
    for count in drawn:
        assert stats.binomtest(int(count), steps, rate).pvalue > MIN_P


def test_batch_sizes_follow_the_binomial_law_empty_batches_included() -> None:
    n, rate, steps = 20, 0.1, 4000
    stream, groups = SecretStream.for_tests(2), _groups(*[2] * n)
    sizes = np.array([len(groups.draw(rate, stream)) for _ in range(steps)])
    observed = np.bincount(np.minimum(sizes, 6), minlength=7)
    law = stats.binom(n, rate)
    expected = np.append(law.pmf(np.arange(6)), law.sf(5)) * steps
    assert observed[0] > 0
    assert stats.chisquare(observed, expected).pvalue > MIN_P


def test_pairs_of_a_patient_are_drawn_uniformly() -> None:
    stream, groups = SecretStream.for_tests(3), _groups(5)
    drawn = [pair for _ in range(5000) for ((_, pair),) in groups.draw(1.0, stream)]
    assert stats.chisquare(np.bincount(drawn, minlength=5)).pvalue > MIN_P


def test_patients_are_drawn_independently_of_one_another_and_of_the_step_before() -> None:
    stream, groups = SecretStream.for_tests(4), _groups(1, 1)
    rows = [{p for ((p, _),) in groups.draw(0.3, stream)} for _ in range(6000)]
    first, second = (np.array([p in row for row in rows], dtype=float) for p in (0, 1))
    assert stats.pearsonr(first, second).pvalue > MIN_P
    assert stats.pearsonr(first[1:], first[:-1]).pvalue > MIN_P


@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=12),
    rate=st.floats(0.01, 1.0),
    key=st.integers(0, 2**64),
)
def test_a_batch_holds_at_most_one_pair_a_patient(sizes: list[int], rate: float, key: int) -> None:
    batch = _groups(*sizes).draw(rate, SecretStream.for_tests(key))
    patients = [patient for ((patient, _),) in batch]
    assert len(set(patients)) == len(patients)
    assert all(pair < sizes[patient] for ((patient, pair),) in batch)
    if rate == 1.0:
        assert patients == list(range(len(sizes)))


@given(rate=st.floats(0.01, 1.0), key=st.integers(0, 2**64))
def test_all_pairs_of_the_same_patients_are_drawn_where_one_would_be(rate: float, key: int) -> None:
    groups = _groups(1, 3, 2, 5)
    one = groups.draw(rate, SecretStream.for_tests(key))
    all_of_them = groups.draw(rate, SecretStream.for_tests(key), pairs="all")
    patients = [patient for ((patient, _),) in one]
    assert all_of_them == tuple(groups.groups[patient] for patient in patients)


def test_grouping_is_by_patient_and_does_not_depend_on_the_order_of_patients() -> None:
    one = group_by_patient([10, 11, 12, 13], ["b", "a", "b", "c"])
    assert one.groups == ((11,), (10, 12), (13,))
    assert one.n_patients == 3
    assert group_by_patient([11, 13, 10, 12], ["a", "c", "b", "b"]) == one


def test_grouping_needs_one_patient_id_a_pair() -> None:
    with pytest.raises(ValueError, match="zip"):
        group_by_patient([1, 2], ["a"])


def test_a_patient_without_pairs_is_refused() -> None:
    with pytest.raises(PrivacyError, match="without pairs"):
        PatientGroups(((1,), ()))


@pytest.mark.parametrize(("batch", "patients"), [(0, 5), (4, 0), (-1, 3)])
def test_a_rate_of_nothing_is_refused(batch: int, patients: int) -> None:
    with pytest.raises(PrivacyError, match="at least 1"):
        sample_rate(batch, patients)


def test_a_batch_larger_than_the_site_draws_everyone() -> None:
    assert sample_rate(8, 3) == 1.0
    assert len(_groups(1, 2, 3).draw(1.0, SecretStream.for_tests(1))) == 3
