"""The gate lets out exactly what a form says; a change of any kind is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from nognet_client.egress.gate import check_content
from nognet_client.egress.release import Outgoing

from nognet.errors import EgressError
from tests.builders.egress import outgoing

KINDS = ("join", "train", "evaluate", "share")
TEXTS = st.sampled_from(["Miller_Anna", "", "site_b", "/data/Miller", "\u0000"])
VALUES = st.one_of(TEXTS, st.booleans(), st.integers(), st.floats(), st.binary(max_size=9))
NAMES = st.sampled_from(["extra", "weights2", "Miller_Anna", "loss2", "federated|dsc|all|patient"])
KEPT_BACK = MetricRecord({"n": 1})


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outgoing]:
    return outgoing(tmp_path_factory.mktemp("site"), min_patients=5)


@dataclass
class Mutated:
    """A content with something changed in it."""

    content: RecordDict
    what: str


def _array(rng: np.random.Generator, how: str, old: Array) -> Array:
    values = np.frombuffer(old.data[-old.shape[0] * 4 :], np.float32).copy()
    if how in {"nan", "inf"}:
        values[rng.integers(values.size)] = float(how)
        return Array(values)
    if how in ODD:
        data, stype = ODD[how](old.data)
        return Array(old.dtype, old.shape, stype, data)
    return Array(RESHAPED[how](values))


ODD: dict[str, Callable[[bytes], tuple[bytes, str]]] = {
    "trailing": lambda data: (data + b"Miller", "numpy.ndarray"),
    # numpy reads it; a text fits into the header's blanks
    "padding": lambda data: (data.replace(b"    ", b"\t\t\t\t", 1), "numpy.ndarray"),
    "stype": lambda data: (data, "Miller"),
}
RESHAPED: dict[str, Callable[[Any], Any]] = {
    "longer": lambda values: np.append(values, np.float32(1)),
    "shorter": lambda values: values[:-1],
    "2d": lambda values: values[None],
    "float64": lambda values: values.astype(np.float64),
    "int32": lambda values: values.astype(np.int32),
}
ARRAYS = ("nan", "inf", *ODD, *RESHAPED)


def _metric(old: float, draw: Callable[[Any], Any]) -> Any:
    how = draw(st.sampled_from(["list", "nan", "inf", "huge", "negative", "other-type"]))
    return {
        "list": [old],
        "nan": float("nan"),
        "inf": float("inf"),
        "huge": 1e300,
        "negative": -1.5 - abs(old),
        "other-type": float(old) + 0.5 if type(old) is int else 10**30,
    }[how]


@st.composite
def mutations(draw: Callable[[Any], Any], original: RecordDict) -> Mutated:
    content = RecordDict({n: copy.deepcopy(r) for n, r in original.items()})
    how = draw(st.sampled_from(["record", "drop-record", "key", "drop-key", "value"]))
    name = draw(st.sampled_from(sorted(content)))
    record = content[name]
    key = draw(st.sampled_from(sorted(record)))
    if how == "record":
        extra = draw(NAMES)
        content[extra] = draw(st.sampled_from([ConfigRecord(), KEPT_BACK, ArrayRecord()]))
    elif how == "drop-record":
        del content[name]
    elif how == "drop-key":
        del record[key]
    elif how == "key":
        if isinstance(record, ConfigRecord):
            record[draw(NAMES)] = draw(VALUES)
        elif isinstance(record, MetricRecord):
            record[draw(NAMES)] = draw(st.floats())
        else:
            record[draw(NAMES)] = record[key]
    elif isinstance(record, ConfigRecord):
        old = record[key]
        record[key] = draw(VALUES.filter(lambda v: type(v) is not type(old) or v != old))
    elif isinstance(record, MetricRecord):
        record[key] = _metric(record[key], draw)
    else:
        rng = np.random.default_rng(draw(st.integers(0, 99)))
        record[key] = _array(rng, draw(st.sampled_from(ARRAYS)), record[key])
    return Mutated(content, f"{how} {name} {key}")


@pytest.mark.parametrize("kind", KINDS)
def test_a_sites_own_messages_pass(messages: dict[str, Outgoing], kind: str) -> None:
    check_content(messages[kind].content, messages[kind].form)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_any_change_of_a_message_is_refused(
    messages: dict[str, Outgoing], kind: str, data: st.DataObject
) -> None:
    message = messages[kind]
    mutated = data.draw(mutations(message.content))
    with pytest.raises(EgressError) as refused:
        check_content(mutated.content, message.form)
    assert "Miller" not in refused.value.public_code


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_of_another_kind_is_refused(messages: dict[str, Outgoing], kind: str) -> None:
    for other in set(KINDS) - {kind}:
        with pytest.raises(EgressError):
            check_content(messages[kind].content, messages[other].form)


@pytest.mark.parametrize("stratum", ["all", "growing"])
def test_statistics_of_too_few_patients_do_not_pass(
    messages: dict[str, Outgoing], stratum: str
) -> None:
    message = messages["evaluate"]
    content = RecordDict({n: copy.deepcopy(r) for n, r in message.content.items()})
    content["statistics"][f"federated|dsc|{stratum}|n_patients"] = 4
    with pytest.raises(EgressError):
        check_content(content, message.form)


def test_a_predictor_with_another_name_does_not_pass(messages: dict[str, Outgoing]) -> None:
    message = messages["evaluate"]
    content = RecordDict({n: copy.deepcopy(r) for n, r in message.content.items()})
    numbers = dict(content["statistics"].items())
    content["statistics"] = MetricRecord(
        {key.replace("federated", "miller_anna"): value for key, value in numbers.items()}
    )
    with pytest.raises(EgressError) as refused:
        check_content(content, message.form)
    assert refused.value.code == "statistics"
