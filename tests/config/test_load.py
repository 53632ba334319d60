"""Every fault of a file at once, each with its path and what to do."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from nognet.config import (
    FedAdamConfig,
    FedAvgConfig,
    FedProxConfig,
    SiteConfig,
    StudyConfig,
    load_site,
    load_study,
    parse_study_json,
)
from nognet.config.load import _TAGS, _models_in
from nognet.errors import ConfigError

SITE = "name: hospital_a\nstudies: studies.csv\n"


def _write(folder: Path, text: str, name: str = "study.yaml") -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def _study_fault(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_study(_write(folder, text))
    assert caught.value.exit_code == 3
    return str(caught.value)


def test_every_fault_is_reported_at_once_with_its_dotted_path(tmp_path: Path) -> None:
    message = _study_fault(
        tmp_path,
        """
        ronds: 3
        roi: {size_vox: 50}
        training: {batch_sise: 4, learning_rate: fast, steps_per_round: 0}
        network: {width: 10}
        privacy: {noise_multiplier: -1}
        """,
    )
    lines = message.splitlines()
    assert lines[0] == f"{tmp_path / 'study.yaml'}: 9 faults"
    found = {line.strip().split(": ")[0]: line for line in lines[1:]}
    assert set(found) == {
        "name",
        "ronds",
        "roi.size_vox",
        "training.batch_sise",
        "training.learning_rate",
        "training.steps_per_round",
        "network.width",
        "privacy.noise_multiplier",
        "privacy.delta",
    }
    assert "missing; this key is needed" in found["name"]
    assert "did you mean 'rounds'?" in found["ronds"]
    assert "did you mean 'batch_size'?" in found["training.batch_sise"]
    assert "(found 'fast')" in found["training.learning_rate"]
    assert "(found 0)" in found["training.steps_per_round"]
    assert "multiple of 16" in found["roi.size_vox"]


def test_one_fault_is_singular(tmp_path: Path) -> None:
    assert ": 1 fault\n" in _study_fault(tmp_path, "name: lungs\nseed: -1\n")


def test_a_key_that_resembles_none_lists_the_known_ones(tmp_path: Path) -> None:
    message = _study_fault(tmp_path, "name: lungs\nroi: {zzzzzz: 1}\n")
    assert "roi.zzzzzz: unknown key; known keys: hu_window, size_vox" in message


def test_the_hint_is_a_key_of_the_same_place_and_not_of_another(tmp_path: Path) -> None:
    # 'width' is a key of network, not of training
    message = _study_fault(tmp_path, "name: lungs\ntraining: {width: 8}\n")
    assert "did you mean" not in message.split("training.width")[1].split("known keys")[0]


def test_hints_reach_into_the_strategy_that_was_chosen(tmp_path: Path) -> None:
    message = _study_fault(tmp_path, "name: lungs\nstrategy: {name: fedprox, proximal_nu: 1}\n")
    assert "strategy.proximal_nu: unknown key; did you mean 'proximal_mu'?" in message


def test_an_unknown_strategy_names_the_known_ones(tmp_path: Path) -> None:
    message = _study_fault(tmp_path, "name: lungs\nstrategy: fedsgd\n")
    assert message.splitlines()[1].strip().startswith("strategy: ")
    assert all(name in message for name in ("fedavg", "fedprox", "fedadam", "fedsgd"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("roi: {hu_window: [400, -1024]}", "roi: the lower end must be below the upper end"),
        (
            "federation: {minimum_sites: 5, expected_sites: 3}",
            "federation: expected_sites (3) can't be below minimum_sites (5)",
        ),
        ("name: Lungs!", "name: "),
        ("server: {listen: 'https://x:1', ca: a, certificate: b, key: c, sites: d}", "server.lis"),
    ],
)
def test_faults_between_keys_and_of_form_name_their_place(
    tmp_path: Path, text: str, words: str
) -> None:
    start = "" if text.startswith("name") else "name: lungs\n"
    assert f"\n  {words}" in _study_fault(tmp_path, start + text + "\n")


def test_a_site_whose_splits_leave_nothing_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path, SITE + "split: {validation: 0.5, test: 0.5}\n", "site.yaml")
    with pytest.raises(ConfigError, match="leave no patients to train on"):
        load_site(path)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("name: a\nseed: 1\nname: b\n", "line 3, column 1 key 'name' is given twice"),
        ("name: a\nroi:\n  size_vox: 48\n  size_vox: 64\n", "line 4, column 3 key 'size_vox' is"),
    ],
)
def test_a_key_given_twice_is_a_fault_and_not_silently_the_last(
    tmp_path: Path, text: str, where: str
) -> None:
    assert where in _study_fault(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: [unclosed\n", "line 2"),
        ("- a\n- b\n", "found list, expected 'key: value' lines"),
        ("", "found NoneType"),
        ("just words\n", "found str"),
        ("name: a\n\tseed: 1\n", "line 2"),
        ("name: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        ("? [a, b]\n: 1\n", "line 1, column 3 a key has to be one word"),
    ],
)
def test_text_that_is_no_mapping_says_where_and_what(tmp_path: Path, text: str, words: str) -> None:
    assert words in _study_fault(tmp_path, text)


def _fault_of(load: Callable[[Path], object], path: Path) -> str | None:
    try:
        load(path)
    except ConfigError as err:
        return str(err)
    return None


_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
_yaml = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "size_vox", "x"]) | _scalars, inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    study=st.dictionaries(st.sampled_from(sorted(StudyConfig.model_fields)), _yaml, max_size=4),
    site=st.dictionaries(st.sampled_from(sorted(SiteConfig.model_fields)), _yaml, max_size=4),
)
def test_any_yaml_mapping_either_loads_or_is_a_config_error(
    study: dict[str, object], site: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    loaders: list[tuple[Callable[[Path], object], dict[str, object]]] = [
        (load_study, {"name": "a", **study}),
        (load_site, {"name": "a", "studies": "s.csv", **site}),
    ]
    for load, values in loaders:
        path = _write(folder, yaml.safe_dump(values, allow_unicode=False), "any.yaml")
        fault = _fault_of(load, path)
        assert fault is None or str(path) in fault


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    for load in (load_study, load_site):
        with pytest.raises(ConfigError, match="no such file; give the path"):
            load(tmp_path / "none.yaml")


def test_a_folder_and_a_binary_file_are_config_errors(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_bytes(b"\xff\xfe\x00name")
    for path in (tmp_path, tmp_path / "study.yaml"):
        with pytest.raises(ConfigError, match="can't be read as UTF-8 text"):
            load_study(path)


def test_paths_are_relative_to_the_files_folder_and_absolute_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, elsewhere = tmp_path / "conf", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    _write(
        folder,
        f"""
        name: hospital_a
        studies: ../data/studies.csv
        cache: {elsewhere / "cache"}
        server: {{address: "nognet.example.org:9443", ca: ca.pem, key: keys/a}}
        """,
        "site.yaml",
    )
    monkeypatch.chdir(elsewhere)
    site = load_site(Path("..") / "conf" / "site.yaml")
    assert site.studies == tmp_path / "data" / "studies.csv"
    assert site.cache == elsewhere / "cache"
    assert site.state == folder / "state"
    assert site.server is not None
    assert (site.server.ca, site.server.key) == (folder / "ca.pem", folder / "keys" / "a")


def test_a_studys_paths_are_relative_to_its_folder_too(tmp_path: Path) -> None:
    study = load_study(
        _write(
            tmp_path,
            """
            name: lungs
            runs: out
            server: {listen: "0.0.0.0:9443", ca: ca.pem, certificate: s.pem, key: s.key, sites: s}
            """,
        )
    )
    assert study.runs == tmp_path / "out"
    assert study.server is not None
    assert study.server.ca == tmp_path / "ca.pem"
    assert study.server.state == tmp_path / "server-state"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", FedAvgConfig),
        ("strategy: fedavg\n", FedAvgConfig),
        ("strategy: {name: fedadam, tau: 0.01}\n", FedAdamConfig),
    ],
)
def test_a_strategy_may_be_a_name_or_a_mapping(
    tmp_path: Path, text: str, wanted: type[object]
) -> None:
    assert isinstance(load_study(_write(tmp_path, "name: lungs\n" + text)).strategy, wanted)


def test_fedprox_by_its_name_alone_has_its_defaults(tmp_path: Path) -> None:
    study = load_study(_write(tmp_path, "name: lungs\nstrategy: fedprox\n"))
    assert study.strategy == FedProxConfig(name="fedprox")


def test_the_least_files_load_with_every_default(tmp_path: Path) -> None:
    study = load_study(_write(tmp_path, "name: lungs\n"))
    assert study == StudyConfig(name="lungs", runs=tmp_path / "runs")
    site = load_site(_write(tmp_path, SITE, "site.yaml"))
    assert site.roi == study.roi
    assert site.privacy is None
    assert isinstance(site, SiteConfig)


def test_a_study_received_as_json_is_the_one_sent() -> None:
    study = StudyConfig(name="lungs", rounds=3, strategy=FedAdamConfig(name="fedadam"))
    assert parse_study_json(study.for_sites()) == study


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"name": "lungs", "bogus": 1}', "{"])
def test_a_study_received_damaged_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"study \(as received\)"):
        parse_study_json(text)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("clipping: adaptiv", "clipping: unknown clipping 'adaptiv'; did you mean 'adaptive'?"),
        ("weights: bound", "weights: unknown weights 'bound'; did you mean 'bounded'?"),
        ("weights: {name: bounded, max_wait: 3}", "weights.max_wait: unknown key; did you mean"),
        ("clipping: {target_quantile: 0.4}", "clipping.name: missing; one of adaptive, fixed"),
    ],
)
def test_central_privacys_choices_are_known_by_name(
    tmp_path: Path, written: str, told: str
) -> None:
    text = "name: lungs\ncentral_privacy:\n  clip_norm: 1\n  delta: 0.1\n"
    message = _study_fault(tmp_path, f"{text}  noise_multiplier: 1\n  {written}\n")
    assert f"central_privacy.{told}" in message


def test_every_choice_that_is_told_apart_by_name_has_its_names_in_the_faults() -> None:
    def keys(model: type[BaseModel]) -> Iterator[tuple[str, set[str]]]:
        for key, field in model.model_fields.items():
            inner = _models_in(field.annotation)
            if field.discriminator or len(inner) > 1:
                yield key, {get_args(m.model_fields["name"].annotation)[0] for m in inner}
            for found in inner:
                yield from keys(found)

    for key, names in (*keys(StudyConfig), *keys(SiteConfig)):
        assert set(_TAGS[key]) == names, key
