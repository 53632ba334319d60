"""Does a message hold exactly what it may? Pure functions; anything unknown is refused."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from nognet.errors import EgressError, WireError
from nognet.metrics.statistics import SiteStatistics
from nognet.metrics.withholding import Limits, TooFewPatientsError, withhold
from nognet.wire.flat import FlatWeights, ParameterSpec, checked_flat, flat_length
from nognet.wire.records import ARRAYS, CONFIG, METRICS, STATISTICS

_UPDATE_RATIO = 10.0
"""An update may be so many times as long as the weights it departs from (decision 0013)."""
_KINDS: dict[str, type[ArrayRecord | ConfigRecord | MetricRecord]] = {
    ARRAYS: ArrayRecord,
    CONFIG: ConfigRecord,
    METRICS: MetricRecord,
    STATISTICS: MetricRecord,
}


@dataclass(frozen=True)
class VectorForm:
    """A flat vector: its length and dtype, as NumPy names it; floats are finite."""

    length: int
    dtype: str = "float32"


@dataclass(frozen=True)
class NumberForm:
    """A number from `low` to `high`, both finite; `whole`: an integer."""

    low: float
    high: float
    whole: bool = False

    @classmethod
    def only(cls, count: int) -> NumberForm:
        """One count and no other."""
        return cls(count, count, whole=True)


@dataclass(frozen=True)
class StatisticsForm:
    """Mergeable statistics of these predictors, of which this may leave."""

    predictors: frozenset[str]
    limits: Limits


@dataclass(frozen=True)
class Form:
    """All that a message holds, no more and no less; each text has one value that it may have."""

    texts: Mapping[str, str | int | bool]
    vectors: Mapping[str, VectorForm] = field(default_factory=dict)
    numbers: Mapping[str, NumberForm] = field(default_factory=dict)
    statistics: StatisticsForm | None = None

    @property
    def records(self) -> set[str]:
        """Names of the records."""
        wanted = {
            ARRAYS: bool(self.vectors),
            METRICS: bool(self.numbers),
            STATISTICS: self.statistics is not None,
        }
        return {CONFIG} | {name for name, is_wanted in wanted.items() if is_wanted}


@dataclass(frozen=True)
class TensorFacts:
    """What a receipt says of one tensor of an update."""

    name: str
    shape: tuple[int, ...]
    bytes: int
    norm: float


@dataclass(frozen=True)
class UpdateFacts:
    """What a receipt says of an update: its length, the longest allowed, and each tensor."""

    norm: float
    limit: float
    tensors: tuple[TensorFacts, ...]


def check_update(
    weights: FlatWeights,
    start: FlatWeights,
    spec: Sequence[ParameterSpec],
    max_norm: float | None,
) -> UpdateFacts:
    """Check the plain weights of a reply, before anything masks them.

    Args:
        weights: Trained, flat.
        start: Received, flat.
        spec: The tensors that they are.
        max_norm: The longest update the site allows; None: ten times the length of `start`.

    Raises:
        EgressError: dtype or length is wrong, a number is not finite, or the update is too long.
    """
    facts = tensor_facts(weights, start, spec)
    norm = math.sqrt(math.fsum(tensor.norm**2 for tensor in facts))
    length = float(np.linalg.norm(start.astype(np.float64)))
    limit = max_norm if max_norm is not None else _UPDATE_RATIO * max(1.0, length)
    if norm > limit:
        raise EgressError(
            f"the update is {norm:.4g} long, at most {limit:.4g} may leave; the training "
            "diverged (lower training.learning_rate), or egress.max_update_norm is too small",
            code="update-norm",
        )
    return UpdateFacts(norm, limit, facts)


def tensor_facts(
    weights: FlatWeights, start: FlatWeights | None, spec: Sequence[ParameterSpec]
) -> tuple[TensorFacts, ...]:
    """Measure each tensor, as its distance from `start` where there is one.

    Raises:
        EgressError: dtype or length is wrong, or a number is not finite.
    """
    length = flat_length(spec)
    try:
        checked_flat(weights, length, what="the weights to send")
        if start is not None:
            checked_flat(start, length, what="the weights received")
    except WireError as err:
        raise EgressError(str(err), code=err.code) from err
    facts, first = [], 0
    for tensor in spec:
        last = first + math.prod(tensor.shape)
        values = weights[first:last].astype(np.float64)
        if start is not None:
            values -= start[first:last]
        norm = float(np.linalg.norm(values))
        facts.append(TensorFacts(tensor.name, tuple(tensor.shape), 4 * values.size, norm))
        first = last
    return tuple(facts)


def check_content(content: RecordDict, form: Form) -> None:
    """Hold the content as it will be sent against its form.

    Raises:
        EgressError: anything is missing, unknown, of another type, not finite or out of range, or
            fewer patients than allowed stand behind a number.
    """
    _check_keys(set(content), form.records, "records")
    for name in form.records:
        if type(content[name]) is not _KINDS[name]:
            raise EgressError(f"record '{name}' is of the wrong kind", code="records")
    _check_texts(dict(content.config_records[CONFIG].items()), form.texts)
    if form.vectors:
        _check_vectors(content.array_records[ARRAYS], form.vectors)
    if form.numbers:
        _check_numbers(dict(content.metric_records[METRICS].items()), form.numbers)
    if form.statistics is not None:
        _check_statistics(dict(content.metric_records[STATISTICS].items()), form.statistics)


def _check_keys(found: AbstractSet[str], wanted: AbstractSet[str], what: str) -> None:
    if found != wanted:
        missing, unknown = len(wanted - found), len(found - wanted)
        raise EgressError(
            f"{what}: {missing} missing and {unknown} unknown, expected exactly {sorted(wanted)}",
            code=what,
        )


def _check_texts(found: Mapping[str, Any], wanted: Mapping[str, str | int | bool]) -> None:
    _check_keys(set(found), set(wanted), "texts")
    for key, value in wanted.items():
        if type(found[key]) is not type(value) or found[key] != value:
            raise EgressError(f"text '{key}' is not the one that may leave", code="texts")


def _check_numbers(found: Mapping[str, Any], wanted: Mapping[str, NumberForm]) -> None:
    _check_keys(set(found), set(wanted), "numbers")
    for key, form in wanted.items():
        value = found[key]
        is_number = type(value) is int or (type(value) is float and not form.whole)
        # written so that NaN, which compares false with everything, is refused
        if not (is_number and math.isfinite(value) and form.low <= value <= form.high):
            raise EgressError(
                f"number '{key}' is not from {form.low:g} to {form.high:g}", code="numbers"
            )


def _check_vectors(record: ArrayRecord, wanted: Mapping[str, VectorForm]) -> None:
    _check_keys(set(record), set(wanted), "vectors")
    for key, form in wanted.items():
        array = record[key]
        declared = (array.dtype, tuple(array.shape), array.stype)
        if declared != (form.dtype, (form.length,), "numpy.ndarray"):
            raise EgressError(
                f"vector '{key}' is not of {form.length} {form.dtype} numbers", code="vectors"
            )
        values = _decoded(array, form)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise EgressError(f"vector '{key}' holds a number that is not finite", code="vectors")


def _decoded(array: Array, form: VectorForm) -> NDArray[Any]:
    """View the vector's bytes, which have to be `numpy.save`'s own to the last one."""
    header = io.BytesIO()
    dtype = np.dtype(form.dtype)
    np.lib.format.write_array_header_1_0(
        header,
        {
            "descr": np.lib.format.dtype_to_descr(dtype),
            "fortran_order": False,
            "shape": (form.length,),
        },
    )
    start = header.getvalue()
    data = array.data
    if not data.startswith(start) or len(data) != len(start) + form.length * dtype.itemsize:
        raise EgressError("the bytes of a vector are not what they declare to be", code="vectors")
    return np.frombuffer(data, dtype=dtype, offset=len(start))


def _check_statistics(flat: Mapping[str, Any], form: StatisticsForm) -> None:
    """Let statistics pass that withholding would not change: all rules were kept already."""
    try:
        statistics = SiteStatistics.from_flat(flat)
        kept = withhold(statistics, form.limits)
    except (WireError, TooFewPatientsError) as err:
        raise EgressError(f"the statistics may not leave: {err}", code="statistics") from err
    if not statistics.predictors or not set(statistics.predictors) <= form.predictors:
        raise EgressError(
            f"the statistics are not of {sorted(form.predictors)} alone", code="statistics"
        )
    if kept != statistics:
        raise EgressError(
            f"a figure has fewer than {form.limits.min_patients} patients behind it, or tells one "
            "that has",
            code="statistics",
        )
