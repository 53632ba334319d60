"""Does a message hold exactly what it may? Pure functions; anything unknown is refused."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from nognet.errors import EgressError, WireError
from nognet.metrics.statistics import SiteStatistics
from nognet.metrics.withholding import TooFewPatientsError, withhold
from nognet.wire.records import ARRAYS, CONFIG, METRICS, STATISTICS
from nognet_client.egress.forms import Form, NumberForm, StatisticsForm, VectorForm

_KINDS: dict[str, type[ArrayRecord | ConfigRecord | MetricRecord]] = {
    ARRAYS: ArrayRecord,
    CONFIG: ConfigRecord,
    METRICS: MetricRecord,
    STATISTICS: MetricRecord,
}


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
        if form.values is not None and value not in form.values:
            raise EgressError(f"number '{key}' is none of those that may leave", code="numbers")


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
            f"that has, or is of {sorted(form.limits.without)}, of which nothing leaves",
            code="statistics",
        )
