"""Messages and contexts as a site's worker gets them."""

from __future__ import annotations

import time

from flwr.app import ConfigRecord, Context, Message, Metadata, RecordDict
from flwr.app.message import make_message


def message(round_number: int | None = 3) -> Message:
    values = {} if round_number is None else {"server-round": round_number}
    metadata = Metadata(
        run_id=1,
        message_id="1",
        src_node_id=1,
        dst_node_id=2,
        reply_to_message_id="",
        group_id="",
        created_at=time.time(),
        ttl=60.0,
        message_type="train",
    )
    return make_message(metadata, content=RecordDict({"config": ConfigRecord(values)}))


CONTEXT = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
