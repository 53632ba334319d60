"""The model that a run leaves, and where it comes from."""

from __future__ import annotations

from typing import Any

import nognet
from nognet.fit.model_file import save_model
from nognet.fit.parts import whole
from nognet.wire.flat import FlatWeights, unpack
from nognet_server.runs.opening import Run
from nognet_server.runs.state import ServerState


def save_run_model(
    run: Run, state: ServerState, weights: FlatWeights, value: float | None, number: int
) -> None:
    """Write a round's weights as the run's model.

    Args:
        run: The run.
        state: Says which sites shaped the weights.
        weights: Those that the sites share.
        value: Of the study's selection metric; None where it has none.
        number: The round.
    """
    provenance: dict[str, Any] = {
        "study": run.study.name,
        "run": run.identity.run_token,
        "round": number,
        "selection": {"metric": run.study.selection.metric, "value": value},
        "sites": list(state.contributors_at(number)),
        "rehearsal": run.study.rehearsal,
        "parts_left_at_sites": run.study.personalisation.local,
        "contract_hash": run.identity.contract_hash,
        "began_with": dict(run.identity.began_with),
        "nognet_version": nognet.__version__,
    }
    save_model(
        run.folder.model,
        whole(run.study, unpack(weights, run.spec)),
        network=run.study.network,
        roi=run.study.roi,
        provenance=provenance,
    )
