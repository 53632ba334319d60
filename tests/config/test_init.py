from __future__ import annotations

import json
from pathlib import Path

import pytest

from nognet.config import CheckpointInit, PhantomInit, RandomInit, load_study, parse_study_json
from nognet.errors import ConfigError


def written(folder: Path, text: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(f"name: tiny\n{text}\n")
    return path


def test_random_is_the_default_and_a_bare_name_stands_for_the_defaults(tmp_path: Path) -> None:
    assert load_study(written(tmp_path, "")).init == RandomInit()
    assert load_study(written(tmp_path, "init: phantom")).init == PhantomInit()
    study = load_study(written(tmp_path, "init: {name: phantom, steps: 20, seed: 3}"))
    assert study.init == PhantomInit(steps=20, seed=3)


def test_a_path_begins_at_the_files_folder_and_never_travels(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, "init: {name: checkpoint, path: models/a.nognet}"))
    assert study.init == CheckpointInit(name="checkpoint", path=tmp_path / "models/a.nognet")
    sent = study.for_sites()
    assert str(tmp_path) not in sent
    assert "models" not in sent
    assert json.loads(sent)["init"]["name"] == "checkpoint"
    assert parse_study_json(sent).for_sites() == sent


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("init: phantoms", "init: unknown init 'phantoms'; did you mean 'phantom'?"),
        ("init: checkpoint", "init.path: missing; this key is needed"),
        ("init: {name: phantom, step: 3}", "init.step: unknown key; did you mean 'steps'?"),
        ("init: {name: random, steps: 3}", "init.steps: unknown key"),
        ("init: {name: phantom, steps: 0}", "init.steps: "),
        (
            "init: phantom\npersonalisation: {local: norms}",
            "those that stay at the sites (personalisation.local: norms) would begin at random",
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_study(written(tmp_path, text))
    assert said in str(raised.value)
