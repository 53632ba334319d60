"""The guard at the site's edge: what goes wrong inside leaves as class and code, never as text.

Flower sends ``str(exception)`` to the coordinator, and that text may hold paths and names of
patients. Here is the one broad ``except`` of the project.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

from flwr.app import Context, Message, RecordDict

from nognet.errors import NognetError
from nognet_client.flower_adapter import error_reply

_log = logging.getLogger("nognet.client")
Handler = Callable[[RecordDict, Context], RecordDict]


def guarded(handler: Handler) -> Callable[[Message, Context], Message]:
    """Make a message handler of a content handler; whatever it raises becomes class and code."""

    def answer(message: Message, context: Context) -> Message:
        try:
            return Message(handler(message.content, context), reply_to=message)
        except NognetError as err:
            _log.error("%s (the coordinator is told only '%s')", err, public_code(err))
            return error_reply(message, public_code(err))
        except Exception as err:  # noqa: BLE001  the guard: no text may leave
            _log.exception("unexpected; the coordinator is told only '%s'", public_code(err))
            return error_reply(message, public_code(err))

    return answer


def public_code(error: Exception) -> str:
    """Give the class and the code of a failure, in letters, digits and hyphens alone.

    >>> public_code(FileNotFoundError("/data/Miller_Anna.dcm"))
    'FileNotFoundError:unexpected'
    """
    name = re.sub(r"[^A-Za-z]", "", type(error).__name__)[:64] or "Exception"
    code = error.code if isinstance(error, NognetError) else "unexpected"
    return f"{name}:{re.sub(r'[^a-z0-9]+', '-', code.lower()).strip('-')[:64] or 'error'}"
