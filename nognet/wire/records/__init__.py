"""The messages of a run, typed, to and from Flower's records; all that arrives is checked here.

This is the one place of the library that imports Flower. A message's content has at most four
records: ``arrays`` (the flat vector ``weights``; for SCAFFOLD a second one), ``config`` (texts and
the round), ``metrics`` (the numbers of a reply) and ``statistics`` (a site's mergeable statistics).
"""

from nognet.wire.records.evaluation import EvaluateReply, EvaluateTask
from nognet.wire.records.joining import FAULTS, JoinReply, JoinTask
from nognet.wire.records.malformed import MALFORMED
from nognet.wire.records.parts import (
    ARRAYS,
    CONFIG,
    METRICS,
    ROUND_KEY,
    STATISTICS,
    WEIGHTS,
    content_bytes,
    content_digest,
    stated_seconds,
    weights_record,
)
from nognet.wire.records.secure import (
    MASKED,
    SECURE_ACTION,
    MaskedTrainReply,
    MaskedTrainTask,
    SecureReply,
    SecureTask,
)
from nognet.wire.records.secure_rows import Rows, Step
from nognet.wire.records.sharing import SHARE_ACTION, ShareReply, ShareTask
from nognet.wire.records.training import PLAIN_REPLY, ReplyForm, TrainReply, TrainTask

__all__ = [
    "ARRAYS",
    "CONFIG",
    "FAULTS",
    "MALFORMED",
    "MASKED",
    "METRICS",
    "PLAIN_REPLY",
    "ROUND_KEY",
    "SECURE_ACTION",
    "SHARE_ACTION",
    "STATISTICS",
    "WEIGHTS",
    "EvaluateReply",
    "EvaluateTask",
    "JoinReply",
    "JoinTask",
    "MaskedTrainReply",
    "MaskedTrainTask",
    "ReplyForm",
    "Rows",
    "SecureReply",
    "SecureTask",
    "ShareReply",
    "ShareTask",
    "Step",
    "TrainReply",
    "TrainTask",
    "content_bytes",
    "content_digest",
    "stated_seconds",
    "weights_record",
]
