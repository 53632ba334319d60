"""Read a YAML file into its model, and report every fault of it at once."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from nognet.config.central_privacy import CLIPPING_NAMES, WEIGHTS_NAMES
from nognet.config.init import INIT_NAMES
from nognet.config.site import SiteConfig
from nognet.config.strategies import STRATEGY_NAMES
from nognet.config.study import StudyConfig
from nognet.errors import ConfigError

ModelT = TypeVar("ModelT", StudyConfig, SiteConfig)


_TAGS: Mapping[str, tuple[str, ...]] = {
    "strategy": STRATEGY_NAMES,
    "init": INIT_NAMES,
    "clipping": CLIPPING_NAMES,
    "weights": WEIGHTS_NAMES,
}
"""Keys whose value is told apart by a name, and the names."""
_NOT_A_VALUE = (ValueError, KeyError, TypeError, AttributeError, OverflowError)
"""What PyYAML lets through from dates, numbers and tags that it can't make a value of."""


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, but a key given twice is an error and not silently the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key has to be one word, found a list", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def load_study(path: Path) -> StudyConfig:
    """Read `study.yaml`; paths in it are relative to its folder.

    Raises:
        ConfigError: the file is missing, is no YAML, or has faults (all are listed).
    """
    return _load(path, StudyConfig)


def load_site(path: Path) -> SiteConfig:
    """Read `site.yaml`; paths in it are relative to its folder.

    Raises:
        ConfigError: the file is missing, is no YAML, or has faults (all are listed).
    """
    return _load(path, SiteConfig)


def load_config(path: Path) -> StudyConfig | SiteConfig:
    """Read a file as the one of the two that it has more keys of; as a study, where it is open.

    Raises:
        ConfigError: the file is missing, is no YAML, or has faults (all are listed).
    """
    keys = _read_mapping(path).keys()
    of_site, of_study = (len(keys & m.model_fields.keys()) for m in (SiteConfig, StudyConfig))
    return load_site(path) if of_site > of_study else load_study(path)


def parse_study_json(text: str) -> StudyConfig:
    """Parse the study as a site received it.

    Raises:
        ConfigError: the text is no valid study.
    """
    try:
        return StudyConfig.model_validate_json(text)
    except ValidationError as err:
        raise ConfigError(_message("study (as received)", StudyConfig, err)) from err


def _load(path: Path, model: type[ModelT]) -> ModelT:
    values = _read_mapping(path)
    try:
        return model.model_validate(model.with_paths_from(path.resolve().parent, values))
    except ValidationError as err:
        raise ConfigError(_message(str(path), model, err)) from err
    except (OSError, ValueError) as err:
        raise ConfigError(f"{path}: one of its paths can't be used ({err})") from err


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as err:
        raise ConfigError(f"{path}: no such file; give the path of a YAML file") from err
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"{path}: can't be read as UTF-8 text ({type(err).__name__})") from err
    try:
        values = yaml.load(text, Loader=_StrictLoader)  # noqa: S506  a subclass of SafeLoader
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(err, "problem", None) or "not YAML"
        raise ConfigError(f"{path}:{where} {problem}") from err
    except RecursionError as err:
        raise ConfigError(f"{path}: lists or keys are nested too deeply") from err
    except _NOT_A_VALUE as err:
        raise ConfigError(
            f"{path}: a date, number or tag in it is none ({err}); put text into quotes"
        ) from err
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: found {type(values).__name__}, expected 'key: value' lines")
    return {str(key): value for key, value in values.items()}


def _message(source: str, model: type[BaseModel], err: ValidationError) -> str:
    faults = [_fault(model, dict(error)) for error in err.errors()]
    noun = "fault" if len(faults) == 1 else "faults"
    return f"{source}: {len(faults)} {noun}\n" + "\n".join(f"  {fault}" for fault in faults)


def _fault(model: type[BaseModel], error: Mapping[str, Any]) -> str:
    location = _as_written(tuple(str(part) for part in error["loc"]))
    path = ".".join(location) or "(top)"
    kind = str(error["type"])
    if kind == "extra_forbidden":
        keys = sorted(_keys_at(model, location[:-1]))
        near = difflib.get_close_matches(location[-1], keys, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(keys)}"
        return f"{path}: unknown key; {hint}"
    if kind == "missing":
        return f"{path}: missing; this key is needed"
    if kind == "union_tag_not_found":
        return f"{path}.name: missing; one of {', '.join(sorted(_TAGS[location[-1]]))}"
    if kind == "union_tag_invalid":
        return f"{path}: {_unknown_name(location[-1], str(error['ctx']['tag']))}"
    found = error.get("input")
    shown = f" (found {found!r})" if isinstance(found, str | int | float | bool) else ""
    return f"{path}: {str(error['msg']).removeprefix('Value error, ')}{shown}"


def _unknown_name(key: str, name: str) -> str:
    known = _TAGS[key]
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"unknown {key} '{name}'; {hint}Known: {', '.join(sorted(known))}"


def _as_written(location: tuple[str, ...]) -> tuple[str, ...]:
    """Leave out the tag of a union's member, which pydantic puts into the path of a fault."""
    return tuple(
        part
        for i, part in enumerate(location)
        if not (i > 0 and part in _TAGS.get(location[i - 1], ()))
    )


def _keys_at(model: type[BaseModel], location: tuple[str, ...]) -> set[str]:
    """Keys that may stand at `location`; union members are told apart by their names."""
    models: list[type[BaseModel]] = [model]
    for part in location:
        fields = [m.model_fields[part].annotation for m in models if part in m.model_fields]
        found = [inner for annotation in fields for inner in _models_in(annotation)]
        models = found or models
    return {key for m in models for key in m.model_fields}


def _models_in(annotation: Any) -> list[type[BaseModel]]:  # noqa: ANN401  any annotation at all
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for argument in typing.get_args(annotation) for m in _models_in(argument)]
