"""What messages are made of: records by name, texts, numbers and flat vectors."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from nognet.errors import WireError
from nognet.wire import fields
from nognet.wire.flat import FlatWeights, checked_flat

ARRAYS, WEIGHTS, CONFIG, METRICS, STATISTICS = (
    "arrays",
    "weights",
    "config",
    "metrics",
    "statistics",
)
ROUND_KEY = "server-round"  # Flower's strategies write the round under this key
_KINDS = {
    ARRAYS: ArrayRecord,
    CONFIG: ConfigRecord,
    METRICS: MetricRecord,
    STATISTICS: MetricRecord,
}


def weights_record(weights: FlatWeights) -> ArrayRecord:
    """Wrap a flat vector as Flower's record of arrays."""
    return arrays_record({WEIGHTS: weights})


def content_bytes(content: RecordDict) -> int:
    """Count the payload of a message: arrays, numbers and texts, without the protocol's frames."""
    return sum(record.count_bytes() for record in content.values())


def content_digest(content: RecordDict) -> str:
    """Hash a message's payload (SHA-256), equal contents to equal hashes.

    Every record's name, every key, and the array's declaration and bytes, or the value's JSON, each
    behind its length.
    """
    digest = hashlib.sha256()
    for name in sorted(content):
        record = content[name]
        digest.update(_counted(name.encode()))
        for key in sorted(record):
            value = record[key]
            parts: tuple[bytes, ...] = (key.encode(),)
            if isinstance(value, Array):
                declared = f"{value.stype} {value.dtype} {list(value.shape)}"
                parts += (declared.encode(), value.data)
            elif isinstance(value, bytes):
                parts += (b"bytes", value)
            else:
                parts += (json.dumps(value).encode(),)
            for part in parts:
                digest.update(_counted(part))
    return digest.hexdigest()


def expect_records(content: RecordDict, names: set[str]) -> None:
    """Refuse a content whose records are not exactly these, of their kinds."""
    found = set(content)
    if found != names:
        raise WireError(
            f"found records {fields.shown(found)}, expected {sorted(names)}", code="records"
        )
    for name in sorted(names):
        if not isinstance(content[name], _KINDS[name]):
            raise WireError(f"record '{name}' is of the wrong kind", code="records")


def config_of(
    content: RecordDict, required: set[str], optional: set[str] | None = None
) -> Mapping[str, Any]:
    """Take the texts and whole numbers; unknown and missing keys are refused."""
    config = dict(content.config_records[CONFIG].items())
    fields.expect_keys(set(config), required, optional or set())
    return config


def numbers_of(
    content: RecordDict, required: set[str], optional: set[str] | None = None
) -> dict[str, int | float]:
    """Take the numbers; unknown and missing keys are refused."""
    numbers = fields.numbers(content.metric_records[METRICS])
    fields.expect_keys(set(numbers), required, optional or set())
    return numbers


def stated_seconds(content: RecordDict) -> float:
    """Read how long a reply says that its work took, before it is checked; 0 if it does not say."""
    record = content.get(METRICS)
    stated = record.get("seconds") if isinstance(record, MetricRecord) else None
    if not isinstance(stated, int | float) or not math.isfinite(stated):
        return 0.0
    return max(0.0, float(stated))


def optional_number(
    numbers: Mapping[str, float], key: str, low: float, high: float
) -> float | None:
    """Read a number from `low` to `high`; None where there is none."""
    return fields.number(numbers, key, low, high) if key in numbers else None


def metrics_record(numbers: Mapping[str, int | float]) -> MetricRecord:
    """Wrap numbers as Flower's record of metrics."""
    return MetricRecord(dict(numbers.items()))


def arrays_record(vectors: Mapping[str, FlatWeights | None]) -> ArrayRecord:
    """Wrap flat vectors as Flower's record of arrays; None are left out."""
    return ArrayRecord({name: Array(v) for name, v in vectors.items() if v is not None})


def vectors_of(
    content: RecordDict, required: set[str], length: int | None, optional: set[str] | None = None
) -> dict[str, FlatWeights]:
    """Take the flat vectors, all as long as the weights.

    Raises:
        WireError: one is missing or unknown, of the wrong dtype or length, damaged or not finite.
    """
    record = content.array_records[ARRAYS]
    fields.expect_keys(set(record), required, optional or set())
    expected = math.prod(record[WEIGHTS].shape) if length is None else length
    return {name: _vector(record[name], expected, name) for name in sorted(record)}


def _vector(array: Array, length: int, name: str) -> FlatWeights:
    """Take one vector; sizes are checked before a byte of it is decoded."""
    if array.dtype != "float32":
        raise WireError(f"{name}: dtype {array.dtype[:20]}, expected float32", code="dtype")
    if tuple(array.shape) != (length,):
        raise WireError(
            f"{name}: shape {tuple(array.shape)[:4]}, expected ({length},)", code="shape"
        )
    return checked_flat(_decoded(array.data, length), length, what=f"the {name} received")


def _counted(data: bytes) -> bytes:
    return f"{len(data)}:".encode() + data


def _decoded(data: bytes, length: int) -> NDArray[np.float32]:
    """View `.npy` bytes as the vector they must hold.

    Flower decodes with `numpy.load`, which allocates whatever size the bytes claim; here the claim
    is checked first, and nothing is copied.
    """
    buffer = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(buffer)
        if version != (1, 0):
            raise WireError("a vector received: unknown .npy version", code="damaged")
        shape, _, dtype = np.lib.format.read_array_header_1_0(buffer)
    except (ValueError, RecursionError) as err:
        raise WireError("a vector received is not in .npy form", code="damaged") from err
    start = buffer.tell()
    if shape != (length,) or dtype != np.dtype("<f4") or len(data) - start != 4 * length:
        raise WireError("a vector received is not what it declares to be", code="damaged")
    return np.frombuffer(data, dtype=np.float32, offset=start)
