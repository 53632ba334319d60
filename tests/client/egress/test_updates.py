"""What leaves as a vector is measured, and does not where it is too long or not finite."""

from __future__ import annotations

import numpy as np
import pytest
from nognet_client.egress.updates import check_control, check_model, check_update

from nognet.errors import EgressError
from nognet.fit.weights import TensorSpec

SPEC = (TensorSpec("a", (2, 2)), TensorSpec("b", (1,)))


def test_an_update_is_measured_tensor_by_tensor() -> None:
    start = np.zeros(5, np.float32)
    facts = check_update(np.array([1, 2, 2, 0, 4], np.float32), start, SPEC, None)
    assert facts.norm == pytest.approx(5.0)
    assert [(t.name, t.shape, t.bytes, t.norm) for t in facts.tensors] == [
        ("a", (2, 2), 16, pytest.approx(3.0)),
        ("b", (1,), 4, pytest.approx(4.0)),
    ]


@pytest.mark.parametrize(
    ("scale", "max_norm", "passes"),
    [(9.9, None, True), (10.1, None, False), (10.1, 31.0, True), (0.2, 0.1, False)],
)
def test_an_update_has_a_longest_length(scale: float, max_norm: float | None, passes: bool) -> None:
    start = np.array([3, 0, 0, 0, 0], np.float32)
    weights = start + np.array([0, 3 * scale, 0, 0, 0], np.float32)
    if passes:
        check_update(weights, start, SPEC, max_norm)
        return
    with pytest.raises(EgressError) as refused:
        check_update(weights, start, SPEC, max_norm)
    assert refused.value.code == "update-norm"


@pytest.mark.parametrize("bad", [np.nan, np.inf, 2e6])
def test_an_update_that_is_not_finite_does_not_pass(bad: float) -> None:
    weights = np.array([0, bad, 0, 0, 0], np.float32)
    with pytest.raises(EgressError):
        check_update(weights, np.zeros(5, np.float32), SPEC, 1e9)


@pytest.mark.parametrize(
    ("learning_rate", "steps", "longest"),
    [(0.01, 10, 30.0), (0.01, 100, 3.0), (1e-9, 1, 3000.0)],  # at the last the coordinator's zero
)
def test_a_control_variate_has_a_longest_length(
    learning_rate: float, steps: int, longest: float
) -> None:
    """By plain SGD with a mean gradient of that length an update of 3 is made."""

    def check(length: float) -> object:
        control = np.array([0, length, 0, 0, 0], np.float32)
        return check_control(
            control, SPEC, update_limit=3.0, learning_rate=learning_rate, steps=steps
        )

    assert check(0.99 * longest)
    with pytest.raises(EgressError) as refused:
        check(1.01 * longest)
    assert refused.value.code == "control-norm"


def test_a_models_longest_length_is_ten_times_the_first_weights() -> None:
    first = np.array([3, 0, 0, 0, 4], np.float32)
    facts = check_model(9.9 * first, first, SPEC)
    assert (facts.norm, facts.limit) == (pytest.approx(49.5), 50.0)
    assert [tensor.name for tensor in facts.tensors] == ["a", "b"]
    with pytest.raises(EgressError) as refused:
        check_model(10.1 * first, first, SPEC)
    assert refused.value.code == "model-norm"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_vector_leaves_that_is_not_finite(bad: float) -> None:
    vector, first = np.array([0, bad, 0, 0, 0], np.float32), np.ones(5, np.float32)
    with pytest.raises(EgressError):
        check_model(vector, first, SPEC)
    with pytest.raises(EgressError):
        check_control(vector, SPEC, update_limit=1e9, learning_rate=0.1, steps=1)
