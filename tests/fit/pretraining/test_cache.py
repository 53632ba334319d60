from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from nognet.config import LossConfig, NetworkConfig, RoiConfig
from nognet.errors import NognetError
from nognet.fit.pretraining import cache
from nognet.fit.pretraining.cache import pretrained, software
from nognet.fit.pretraining.train import pretrain
from tests.builders.pretraining import TINY, tiny_pretraining


class Killed(BaseException):
    """Ends a pre-training as a signal would."""


def test_what_was_pre_trained_is_not_trained_again(tmp_path: Path) -> None:
    what = tiny_pretraining(steps=1)
    told: list[int] = []
    first = pretrained(what, tmp_path, lambda step, _of, _loss: told.append(step))
    again = pretrained(what, tmp_path, lambda step, _of, _loss: told.append(step))
    assert told == [1]
    assert all(torch.equal(first.weights[name], again.weights[name]) for name in first.weights)
    assert again.provenance["phantom_pairs"] == 2
    assert again.provenance["init"]["steps"] == 1


def test_a_killed_one_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    what, told = tiny_pretraining(), []

    def killed(step: int, _of: int, _loss: float) -> None:
        if step == 2:
            raise Killed

    ticks = iter(range(0, 10_000, 60))  # every look at the clock is a minute later
    with pytest.raises(Killed):
        pretrained(what, tmp_path, killed, clock=lambda: float(next(ticks)))
    assert list(tmp_path.glob("*.partial"))
    found = pretrained(what, tmp_path, lambda step, _of, _loss: told.append(step))
    assert told == [3]
    assert not list(tmp_path.glob("*.partial"))
    whole = pretrain(what)
    assert all(torch.equal(found.weights[name], whole[name]) for name in whole)


@pytest.mark.parametrize("ending", [".partial", ".nognet"])
def test_a_damaged_file_costs_time_alone(tmp_path: Path, ending: str) -> None:
    what, told = tiny_pretraining(steps=1), []
    path = tmp_path / f"{what.digest(software())[:32]}{ending}"
    path.write_bytes(b"half a file")
    pretrained(what, tmp_path, lambda step, _of, _loss: told.append(step))
    assert told == [1]


def test_the_digest_depends_on_all_that_the_weights_depend_on() -> None:
    what = tiny_pretraining()
    others = [
        dataclasses.replace(what, network=NetworkConfig.model_validate({**TINY, "width": 8})),
        dataclasses.replace(what, roi=RoiConfig(size_vox=48)),
        dataclasses.replace(what, loss=LossConfig(dice=2.0)),
        tiny_pretraining(seed=2),
        tiny_pretraining(threads=2),
    ]
    digests = {other.digest("this release") for other in (what, *others)}
    assert len({*digests, what.digest("the next release")}) == 7
    assert what.digest("this release") == tiny_pretraining().digest("this release")


def test_the_software_is_named_by_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    for text in ("x = 1\n", "x = 2\n"):
        for room in cache._SOURCES:
            (tmp_path / room).mkdir(exist_ok=True)
        (tmp_path / "phantom" / "law.py").write_text(text)
        monkeypatch.setattr(cache.nognet, "__file__", str(tmp_path / "__init__.py"))
        found.add(software.__wrapped__())
    assert len(found) == 2


def test_a_folder_that_cant_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NognetError, match="can't be kept there"):
        pretrained(tiny_pretraining(), tmp_path / "file" / "cache")
