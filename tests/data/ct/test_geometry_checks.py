from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nognet.data.ct.geometry_checks import stack_slices
from tests.builders.ct_files import rotation

AXIAL = np.array([1.0, 0, 0, 0, 1, 0])


def positions(z: list[float] | np.ndarray) -> np.ndarray:
    return np.array([[-100.0, -90.0, level] for level in z])


def check(where: np.ndarray, orientation: np.ndarray = AXIAL):  # type: ignore[no-untyped-def]  # noqa: ANN201
    return stack_slices(where, np.tile(orientation, (len(where), 1)))


angles = st.tuples(*[st.floats(-80, 80)] * 3)


@given(angles, st.floats(0.4, 8.0), st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_even_slices_of_any_orientation_are_sorted_and_their_gap_is_measured(
    degrees: tuple[float, float, float], gap: float, n: int, seed: int
) -> None:
    axes = rotation(degrees)
    order = np.random.default_rng(seed).permutation(n)
    where = order[:, None] * gap * axes[:, 2] + np.array([12.0, -300.0, 55.0])
    stack, faults = check(where, np.concatenate([axes[:, 0], axes[:, 1]]))
    assert stack is not None
    assert not [f for f in faults if f.severity == "refused"]
    assert stack.gap_mm == pytest.approx(gap, rel=1e-9)
    np.testing.assert_array_equal(order[list(stack.order)], np.arange(n))


@given(st.floats(0.5, 5.0), st.integers(0, 2**32 - 1))
def test_jitter_of_a_thousandth_of_a_millimetre_passes(gap: float, seed: int) -> None:
    jitter = np.random.default_rng(seed).uniform(-0.0007, 0.0007, 30)
    stack, faults = check(positions(np.arange(30) * gap + jitter))
    assert stack is not None
    assert faults == ()


def test_alternating_gaps_of_rounded_headers_pass() -> None:
    gaps = np.tile([3.987, 3.988], 30)
    stack, faults = check(positions(np.concatenate([[0.0], np.cumsum(gaps)])))
    assert stack is not None
    assert faults == ()
    assert stack.gap_mm == pytest.approx(3.9875)


@pytest.mark.parametrize("degrees", [2.0, 14.0, 27.5])
@pytest.mark.parametrize("axis", [0, 1])
def test_gantry_tilt_is_refused_with_its_angle(degrees: float, axis: int) -> None:
    where = positions(np.arange(20) * 5.0 * np.cos(np.radians(degrees)))
    where[:, axis] += np.arange(20) * 5.0 * np.sin(np.radians(degrees))
    stack, faults = check(where)
    assert stack is None
    assert [f.code for f in faults] == ["sheared"]
    assert f"slices are sheared {degrees:.1f} degrees" in faults[0].message


def test_tilt_with_changing_thickness_lists_both_and_the_gaps() -> None:
    z = np.concatenate([np.arange(10) * 5.0, 45 + np.arange(1, 8) * 8.0])
    where = positions(z)
    where[:, 1] += z * np.tan(np.radians(20))
    stack, faults = check(where)
    assert stack is None
    assert [f.code for f in faults] == ["sheared", "irregular-spacing"]
    assert "5 mm (9x)" in faults[1].message
    assert "8 mm (7x)" in faults[1].message


@given(st.sets(st.integers(1, 18), min_size=1, max_size=6), st.floats(0.6, 5.0))
def test_missing_slices_are_counted_never_averaged_away(gone: set[int], gap: float) -> None:
    z = [k * gap for k in range(20) if k not in gone]
    stack, faults = check(positions(z))
    assert stack is None
    assert faults[0].code == "missing-slice"
    counted = "1 slice is" if len(gone) == 1 else f"{len(gone)} slices are"
    assert faults[0].message.startswith(f"{counted} missing")


def test_images_at_one_position_are_no_volume() -> None:
    stack, faults = check(positions([7.0] * 4))
    assert stack is None
    assert faults[0].code == "same-position"
    assert faults[0].message == "not a volume: 4 images at one position"


def test_a_repeated_position_is_refused() -> None:
    stack, faults = check(positions([0.0, 1.0, 2.0, 2.0, 3.0]))
    assert stack is None
    assert faults[0].code == "duplicate-position"


def test_scattered_positions_are_refused() -> None:
    where = positions(np.arange(10.0))
    where[4, 0] += 3.0
    stack, faults = check(where)
    assert stack is None
    assert "irregular-spacing" in {f.code for f in faults}


def test_turned_slices_are_refused() -> None:
    turned = np.tile(AXIAL, (4, 1))
    axes = rotation((5.0, 0, 0))
    turned[2] = np.concatenate([axes[:, 0], axes[:, 1]])
    stack, faults = stack_slices(positions(np.arange(4.0)), turned)
    assert stack is None
    assert faults[0].code == "mixed-orientation"
    assert "5.0 degrees" in faults[0].message


def test_an_oblique_stack_passes_with_a_warning() -> None:
    axes = rotation((20.0, 0, 0))
    where = np.arange(5)[:, None] * 2.0 * axes[:, 2]
    stack, faults = check(where, np.concatenate([axes[:, 0], axes[:, 1]]))
    assert stack is not None
    assert [(f.code, f.severity) for f in faults] == [("oblique", "warning")]
    assert "20.0 degrees" in faults[0].message


def test_one_slice_is_no_volume() -> None:
    assert check(positions([3.0]))[1][0].code == "single-slice"
