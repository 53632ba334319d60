"""One task in a forked child against a stand-in for the SuperNode; prints who asked it for what.

Run as ``python -m tests.builders.forked_task``, for a process with pytest's threads is not to be
forked. It prints a JSON list of requests: the path's end, and the port of the connection.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from flwr.app import Context, Message
from flwr.proto.runtime_pb2 import PullTaskInputRequest, SendTaskHeartbeatResponse
from flwr.supercore.fab import Fab
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from nognet_client.processes import flower_internals, task_child, worker

from nognet.supervision.events import EventWriter
from tests.builders.task_messages import CONTEXT, message

asked: list[tuple[str, int]] = []


class SuperNode(BaseHTTPRequestHandler):
    """Note each request; a heartbeat's answer says that the task is wanted still."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer a call of the Runtime API."""
        self.rfile.read(int(self.headers["content-length"]))
        name = self.path.rpartition("/")[2]
        asked.append((name, self.client_address[1]))
        is_beat = name == "send-task-heartbeat"
        body = SendTaskHeartbeatResponse(success=True).SerializeToString() if is_beat else b""
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def app(task: Message, _context: Context) -> Message:
    """Work for as long as a few heartbeats take."""
    time.sleep(0.3)
    return Message(task.content, reply_to=task)


def pull_task_input(client: RuntimeHttpClient) -> tuple[Message, Context, None, Fab]:
    """Give a task, after a call over the connection that the worker reads tasks with."""
    client.PullTaskInput(PullTaskInputRequest())
    return message(), CONTEXT, None, Fab("", b"", {})


def main() -> None:
    """Run the task as the worker does; the heart beats quickly meanwhile."""
    for name in ("_run_id", "_node_id", "_task_id"):
        setattr(TaskIdentity, name, 1)
    flower_internals.pull_task_input = pull_task_input  # type: ignore[assignment]  # no run
    worker.check_bundle = lambda _bundle: None
    task_child.HEARTBEAT_S = 0.01
    server = ThreadingHTTPServer(("127.0.0.1", 0), SuperNode)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    worker.run_task(f"127.0.0.1:{server.server_port}", "token", app, EventWriter(None))
    json.dump(asked, sys.stdout)


if __name__ == "__main__":
    main()
