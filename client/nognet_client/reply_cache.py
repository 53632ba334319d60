"""The replies a site has given, on disk: a task that is sent again is answered, not done again.

A SuperNode or the coordinator may restart while a reply is on its way; the task comes again. The
key is run, round and kind; the task's digest must agree too, or the work is done anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from nognet.files import atomic_path
from nognet.wire.records import EvaluateReply, EvaluateTask, TrainReply, TrainTask

_log = logging.getLogger("nognet.client")
Kind = Literal["train", "evaluate-train", "evaluate-validation", "evaluate-test"]
ReplyT = TypeVar("ReplyT", TrainReply, EvaluateReply)
_KEY = "nognet-reply"
_VECTORS = ("weights", "control")
KEPT_REPLIES = 4
_KEPT_RUNS = 4


class ReplyCache:
    """The last replies of the last runs, in a site's state folder."""

    def __init__(self, state_folder: Path) -> None:
        self._folder = state_folder / "replies"

    def find(
        self, task: TrainTask | EvaluateTask, digest: str, form: type[ReplyT]
    ) -> ReplyT | None:
        """Give the reply that was made for exactly this task; None if there is none."""
        path = self._path(task)
        try:
            with safetensors.safe_open(path, framework="np") as opened:
                entry = json.loads((opened.metadata() or {})[_KEY])
                names = list(opened.keys())
                arrays = {name: opened.get_tensor(name) for name in names}
            if entry["digest"] != digest:
                return None
            values: dict[str, Any] = entry["reply"]
            values |= {name: arrays[name] for name in _VECTORS if name in arrays}
            reply = form(**values)
        except FileNotFoundError:
            return None
        except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as err:
            _log.warning(
                "%s: not a kept reply (%s); the task is done anew", path, type(err).__name__
            )
            return None
        _log.info("round %d: answered from the kept reply", task.round_number)
        return reply

    def keep(
        self, task: TrainTask | EvaluateTask, digest: str, reply: TrainReply | EvaluateReply
    ) -> None:
        """Keep a reply, and drop those that nobody can ask for any more.

        Where it can't be written (a full disk), the reply still goes out; should it get lost on
        its way, the task is done again.
        """
        arrays: dict[str, NDArray[Any]] = {}
        values = asdict(reply)
        if isinstance(reply, TrainReply):
            vectors = {name: values.pop(name) for name in _VECTORS}
            arrays = {name: np.asarray(v) for name, v in vectors.items() if v is not None}
        else:
            values["statistics"] = dict(reply.statistics)
        entry = json.dumps({"digest": digest, "reply": values}, allow_nan=False)
        path = self._path(task)
        try:
            with atomic_path(path, mode=0o600) as temporary:
                safetensors.numpy.save_file(arrays, temporary, metadata={_KEY: entry})
        except (OSError, safetensors.SafetensorError) as err:
            _log.warning(
                "round %d: the reply can't be kept in %s (%s); it is sent all the same. Free some "
                "space: a reply that gets lost would have to be made again",
                task.round_number,
                self._folder,
                getattr(err, "strerror", None) or type(err).__name__,
            )
            return
        _drop(_newest_first(path.parent.glob("*.reply"))[KEPT_REPLIES:])
        _drop(_newest_first(self._folder.iterdir())[_KEPT_RUNS:])

    def _path(self, task: TrainTask | EvaluateTask) -> Path:
        visitor = getattr(task, "model_of", None)
        kind = f"{kind_of(task)}-of-{visitor}" if visitor else kind_of(task)
        name = f"{task.round_number:05d}-{kind}.reply"
        return self._folder / task.run_token / name


def kind_of(task: TrainTask | EvaluateTask) -> Kind:
    """Name what a task asks for."""
    if isinstance(task, TrainTask):
        return "train"
    kinds: dict[str, Kind] = {
        "train": "evaluate-train",
        "validation": "evaluate-validation",
        "test": "evaluate-test",
    }
    return kinds[task.split]


def task_digest(task: TrainTask | EvaluateTask, *facts: str) -> str:
    """Hash a task and what else its reply depends on (the site's configuration, its pairs)."""
    digest = hashlib.sha256()
    texts = (kind_of(task), str(task.round_number), task.study_json, task.contract_hash, *facts)
    for text in texts:
        digest.update(f"{len(text)}:{text}".encode())
    digest.update(np.ascontiguousarray(task.weights).tobytes())
    if isinstance(task, TrainTask) and task.correction is not None:
        digest.update(np.ascontiguousarray(task.correction).tobytes())
    if isinstance(task, EvaluateTask):
        digest.update(f"{task.personalise} {task.model_of}".encode())
    return digest.hexdigest()


def _newest_first(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)


def _drop(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
