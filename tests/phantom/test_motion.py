from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nognet.phantom.motion import draw_motion, rotation_matrix


@given(seed=st.integers(0, 5000))
def test_to_scan_inverts_to_tissue(seed: int) -> None:
    rng = np.random.default_rng(seed)
    motion = draw_motion((5.0, -160.0, -640.0), rng)
    tissue = rng.uniform(-120, 120, (50, 3))
    scan = motion.to_scan(tissue)
    back = np.stack(motion.to_tissue(*scan.T), axis=1)
    assert np.abs(back - tissue).max() < 1e-3


def test_two_dates_differ_by_millimetres() -> None:
    point = np.array([[70.0, 20.0, 0.0]])
    places = np.concatenate(
        [draw_motion((0, 0, 0), np.random.default_rng(s)).to_scan(point) for s in range(200)]
    )
    spread = places.std(axis=0)
    assert (spread > 1.0).all()
    assert np.linalg.norm(places - point, axis=1).max() < 20.0


def test_rotation_keeps_lengths_and_handedness() -> None:
    turn = rotation_matrix(np.array([0.3, -0.2, 0.5]))
    assert turn @ turn.T == pytest.approx(np.eye(3), abs=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1.0)
