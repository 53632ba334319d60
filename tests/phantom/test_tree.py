from __future__ import annotations

import numpy as np
import pytest

from nognet.phantom.tree import MURRAY_EXPONENT, grow_tree


def test_a_tree_reaches_every_target_from_its_root() -> None:
    rng = np.random.default_rng(0)
    root, targets = np.zeros(3), rng.uniform(-50, 50, (70, 3))
    tree = grow_tree(root, targets, 5.0, rng)
    gaps = np.linalg.norm(targets[:, None] - tree.end_mm, axis=2).min(axis=1)
    assert gaps.max() < 1e-9
    ends = {tuple(np.round(end, 9)) for end in tree.end_mm} | {tuple(np.round(root, 9))}
    assert all(tuple(np.round(start, 9)) in ends for start in tree.start_mm)


def test_radii_follow_murrays_law() -> None:
    rng = np.random.default_rng(1)
    targets = rng.uniform(-50, 50, (64, 3))
    tree = grow_tree(np.zeros(3), targets, 5.0, rng)
    assert tree.radius_mm.max() == pytest.approx(5.0)
    assert tree.radius_mm.min() == pytest.approx(5.0 * (1 / 64) ** (1 / MURRAY_EXPONENT))


def test_targets_are_left_as_they_were() -> None:
    rng = np.random.default_rng(2)
    targets = rng.uniform(-50, 50, (20, 3))
    before = targets.copy()
    grow_tree(np.zeros(3), targets, 5.0, rng)
    assert np.array_equal(targets, before)
