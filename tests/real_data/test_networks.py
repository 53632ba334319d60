"""MT-NoGNet on nodules grown inside a real CT: ahead of copying and of isotropic growth."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nognet.fit.contest.cohort import phantom_cohort
from nognet.fit.contest.intervals import compare
from nognet.fit.contest.run import Plan, run_contest
from nognet.fit.contest.train import Budget

pytestmark = [pytest.mark.real_data, pytest.mark.slow]

DEFAULT = Path(__file__).resolve().parents[2].parent / "shared" / "data"
BACKGROUND = "elastix_lung_pair/Baselines/3DCT_lung.mha"


def test_mtnognet_is_ahead_of_copying_and_of_isotropic_growth_in_a_real_ct() -> None:
    root = Path(os.environ.get("NOGNET_REAL_DATA", DEFAULT))
    if not (root / BACKGROUND).is_file():
        pytest.skip(f"no real CT at {root / BACKGROUND}; set NOGNET_REAL_DATA to the data's folder")
    cohort = phantom_cohort(30, 24, seed=11, background=root / BACKGROUND)
    plan = Plan(names=("mtnognet",), seeds=(1,), budget=Budget(steps=100))
    rows = run_contest(plan, cohort).rows
    for other in ("copy", "isotropic"):
        found = {(d.metric, d.stratum): d for d in compare(rows, "mtnognet", other)}
        for what in (("psnr", None), ("ssim", None), ("dsc", None), ("dsc", "growing")):
            low = found[what].low
            assert low is not None, (other, what)
            assert low > 0, (other, what, found[what])
