"""The weights that a run begins with: laid ready by the command, read by the ServerApp.

What takes minutes (pre-training) or knows a path of the coordinator (a model file) is done by the
process that the user started; the ServerApp, simulated or deployed, finds one file in the run
folder. A run that has a checkpoint begins with that, whatever its study's `init` says.
"""

from __future__ import annotations

import logging
from pathlib import Path

from nognet.config import StudyConfig
from nognet.errors import ConfigError
from nognet.fit.model_file import load_model, save_model
from nognet.fit.pretraining.beginning import Beginning, beginning, first_weights
from nognet.fit.pretraining.train import Progress
from nognet_server.runs.checkpoints import latest_round
from nognet_server.runs.folder import RunFolder

PRETRAINING = "pre-training on phantoms"
_log = logging.getLogger("nognet.server")


def pretraining_folder(study: StudyConfig) -> Path:
    """Where the coordinator keeps what it pre-trained: its state folder, or beside the runs."""
    if study.server is not None:
        return study.server.state / "pretrained"
    return study.runs / ".pretrained"


def lay_beginning(study: StudyConfig, folder: RunFolder, progress: Progress | None = None) -> None:
    """Lay the first weights of a run ready, where they are not drawn from its seed.

    Args:
        study: Of the run.
        folder: Of the run; one that has a checkpoint is left as it is.
        progress: Told of the steps of a pre-training.

    Raises:
        ConfigError, WireError: the model file can't be begun with.
        TrainingError, NognetError: pre-training went wrong, or can't be kept.
    """
    if study.init.name == "random" or latest_round(folder) is not None:
        return
    begun = beginning(study, pretraining_folder(study), progress)
    save_model(
        folder.beginning,
        begun.weights,
        network=study.network,
        roi=study.roi,
        provenance=begun.lineage,
    )
    _log.info("the run begins with: %s (%s)", study.init.name, begun.lineage["weights_sha256"][:16])


def read_beginning(study: StudyConfig, folder: RunFolder) -> Beginning:
    """Give the first weights of a run: from its folder, or drawn from its seed.

    Raises:
        ConfigError: the study asks for others than random ones, but none were laid ready.
        WireError: the file is damaged or of another network.
    """
    if study.init.name == "random":
        return first_weights(study)
    if not folder.beginning.is_file():
        raise ConfigError(
            f"{folder.beginning}: missing, but the study has init: {study.init.name}; start runs "
            "with nognet-server or nognet-sim, which lay it ready",
            code="no-beginning",
        )
    model = load_model(folder.beginning)
    return Beginning(model.weights, dict(model.provenance))
