from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nognet.fit.step_cost import StepPlan, setting


@pytest.mark.parametrize("batch", [1, 4, 6])
def test_a_batch_is_made_of_as_many_patients(batch: int, tmp_path: Path) -> None:
    plan = StepPlan(roi_size_vox=32, width=4, batch_size=batch)
    study, _, prepared = setting(plan, torch.device("cpu"), tmp_path)
    counts = prepared.counts()["train"]
    assert (counts["patients"], counts["pairs"]) == (batch, batch)
    assert study.training.batch_size == batch
