"""What Flower raises when bytes that arrived are no message."""

from __future__ import annotations

from flwr.supercore.inflatable.inflatable_object import UnexpectedObjectContentError
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError
from google.protobuf.message import Error as ProtobufError

MALFORMED: tuple[type[Exception], ...] = (
    UnexpectedObjectContentError,
    ObjectPullError,
    ProtobufError,
    ValueError,  # of numbers, JSON, UTF-8
    TypeError,
    LookupError,
    AttributeError,  # a record of another kind where one is expected
    ArithmeticError,
    RuntimeError,  # nested too deeply, too
    AssertionError,
    EOFError,
)
"""Flower checks little of what it reads and names no error for it; tests/wire mutates messages."""
