"""What was pre-trained, on disk: finished weights by the digest of all that they depend on.

A pre-training at work leaves its state beside, every half minute: one that was killed is gone on
with, to the bits that it would have come to. No pickle anywhere.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

import nognet
from nognet.errors import NognetError, WireError
from nognet.files import atomic_path
from nognet.fit.model_file import SavedModel, load_model, save_model
from nognet.fit.pretraining.stream import patients_seen
from nognet.fit.pretraining.train import Midway, Pretraining, Progress, pretrain
from nognet.fit.weights import check_weights, weight_spec
from nognet.progress import Clock

KEEP_EVERY_S = 30.0
_SOURCES = ("phantom", "network", "fit")
_KEY = "nognet-pretraining"
_log = logging.getLogger("nognet.pretraining")


def pretrained(
    what: Pretraining,
    cache: Path,
    progress: Progress | None = None,
    *,
    clock: Clock = time.monotonic,
) -> SavedModel:
    """Give what was pre-trained before, or pre-train now; on the CPU, with equal bits.

    Args:
        what: Network, ROI, loss, steps, seed.
        cache: Folder of finished and of unfinished pre-trainings; made if needed.
        progress: Told of every step.
        clock: Seconds, for how often the state is kept.

    Raises:
        TrainingError: a loss is not finite.
        NognetError: the folder can't be written.
    """
    digest = what.digest(software())
    done = cache / f"{digest[:32]}.nognet"
    try:
        with _one_at_a_time(cache / f"{digest[:32]}.lock"):
            found = _finished(done)
            if found is not None:
                _log.info("pre-trained on phantoms before: %s", done)
                return found
            kept = _Kept(done.with_suffix(".partial"), clock)
            begun = kept.read(what)
            if begun is not None:
                _log.info("pre-training goes on after step %d", begun.steps)
            weights = pretrain(what, begun=begun, progress=progress, keep=kept.keep)
            provenance = {**described(what), "digest": digest, "device": "cpu"}
            save_model(done, weights, network=what.network, roi=what.roi, provenance=provenance)
            kept.path.unlink(missing_ok=True)
    except OSError as err:
        raise NognetError(
            f"{cache}: what is pre-trained can't be kept there ({err.strerror}); make room, or see "
            "that the folder can be written",
            code="pretraining-not-written",
        ) from err
    return load_model(done)


def described(what: Pretraining) -> dict[str, object]:
    """Describe a pre-training for the provenance of its weights."""
    settings = what.settings
    return {
        "init": settings.model_dump(mode="json"),
        "phantom_pairs": settings.steps * settings.batch_size,
        "phantom_patients": patients_seen(settings.steps * settings.batch_size, settings.seed),
        "loss": what.loss.model_dump(mode="json"),
        "nognet_version": nognet.__version__,
    }


@functools.cache
def software() -> str:
    """Name all software that the bits depend on: versions, and the code of this package itself.

    A checkout changes between releases, which its version doesn't tell.
    """
    root = Path(nognet.__file__).parent
    code = hashlib.sha256()
    for path in sorted(path for room in _SOURCES for path in (root / room).rglob("*.py")):
        code.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    versions = {name: importlib.metadata.version(name) for name in ("torch", "numpy")}
    return json.dumps({"nognet": nognet.__version__, "code": code.hexdigest(), **versions})


class _Kept:
    """The state of a pre-training at work, kept every half minute."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path, self.clock = path, clock
        self._last = clock()

    def keep(self, state: Callable[[], Midway]) -> None:
        """Write the state where the last is old enough."""
        if self.clock() - self._last < KEEP_EVERY_S:
            return
        midway, self._last = state(), self.clock()
        tensors = {f"weights/{name}": tensor for name, tensor in midway.weights.items()}
        for name, moments in midway.moments.items():
            tensors |= {f"{key}/{name}": tensor for key, tensor in moments.items()}
        header = json.dumps({"steps": midway.steps})
        with atomic_path(self.path) as temporary:
            safetensors.torch.save_file(tensors, temporary, metadata={_KEY: header})

    def read(self, what: Pretraining) -> Midway | None:
        """Read the state; None where there is none, or it can't be used: only time is lost."""
        try:
            with safetensors.safe_open(self.path, framework="pt") as opened:
                header = json.loads((opened.metadata() or {})[_KEY])
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  no dict
            midway = _midway(int(header["steps"]), tensors, what)
        except FileNotFoundError:
            return None
        except (safetensors.SafetensorError, OSError, KeyError, ValueError, WireError) as err:
            _log.warning("%s: can't be gone on with (%s)", self.path, type(err).__name__)
            return None
        return midway


def _midway(steps: int, tensors: dict[str, Tensor], what: Pretraining) -> Midway:
    spec = weight_spec(what.network)
    weights = {item.name: tensors[f"weights/{item.name}"] for item in spec}
    check_weights(weights, spec)
    moments: dict[str, dict[str, Tensor]] = {}
    for full, tensor in tensors.items():
        key, _, name = full.partition("/")
        if key != "weights":
            moments.setdefault(name, {})[key] = tensor
    return Midway(steps, weights, moments)


def _finished(path: Path) -> SavedModel | None:
    if not path.is_file():
        return None
    try:
        return load_model(path)
    except WireError as err:
        _log.warning("%s: not used, pre-training anew (%s)", path, err)
        return None


@contextlib.contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Let a second process that wants the same wait for the first one's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("another process pre-trains the same; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
