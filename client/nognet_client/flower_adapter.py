"""Everything of Flower that the ClientApp uses and Flower doesn't document, in one place."""

from __future__ import annotations

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

UNDOCUMENTED = ("flwr.common.constant:ErrorCode.CLIENT_APP_RAISED_EXCEPTION",)


def error_reply(to: Message, public_code: str) -> Message:
    """Answer with a failure's class and code, and nothing else."""
    error = Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=public_code)
    return Message(error, reply_to=to)
