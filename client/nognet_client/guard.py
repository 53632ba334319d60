"""The guard at the site's edge: what goes wrong inside leaves as class and code, never as text.

Flower sends ``str(exception)`` to the coordinator, and that text may hold paths and names of
patients. Here, and where a task's process hands over what came of it (`processes.task_child`), are
the broad ``except`` clauses of the project. What goes well passes the gate.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

from flwr.app import Context, Message, RecordDict

from nognet.config import SiteConfig
from nognet.errors import NognetError
from nognet_client.egress.release import Outgoing, release, released_code, site_of
from nognet_client.flower_adapter import error_reply

_log = logging.getLogger("nognet.client")
_NOT_RECORDED = "EgressError:not-recorded"
Handler = Callable[[RecordDict, SiteConfig], Outgoing]


def guarded(handler: Handler) -> Callable[[Message, Context], Message]:
    """Make a message handler of a content handler.

    What it gives is checked and recorded by the gate before it leaves; whatever it raises becomes
    class and code, recorded as well.
    """

    def answer(message: Message, context: Context) -> Message:
        try:
            site = site_of(context)
            return Message(release(site, handler(message.content, site)), reply_to=message)
        except NognetError as err:
            _log.error("%s (the coordinator is told only '%s')", err, public_code(err))
            return error_reply(message, told(message, context, public_code(err)))
        except Exception as err:  # noqa: BLE001  the guard: no text may leave
            _log.exception("unexpected; the coordinator is told only '%s'", public_code(err))
            return error_reply(message, told(message, context, public_code(err)))

    return answer


def told(message: Message, context: Context, code: str) -> str:
    """Record that a task ends with an error; give the class and code that may leave.

    Whatever fails in that: what this raised would leave as Flower's ``str(err)``.
    """
    try:
        return released_code(message, context, code)
    except Exception:  # noqa: BLE001  the guard: no text may leave
        _log.exception("unexpected; the coordinator is told only '%s'", _NOT_RECORDED)
        return _NOT_RECORDED


def public_code(error: BaseException) -> str:
    """Give the class and the code of a failure, in letters, digits and hyphens alone.

    >>> public_code(FileNotFoundError("/data/Miller_Anna.dcm"))
    'FileNotFoundError:unexpected'
    """
    name = re.sub(r"[^A-Za-z]", "", type(error).__name__)[:64] or "Exception"
    code = error.code if isinstance(error, NognetError) else "unexpected"
    return f"{name}:{re.sub(r'[^a-z0-9]+', '-', code.lower()).strip('-')[:64] or 'error'}"
