"""What a reply under privacy may say of epsilon: what its run spent, as the ledger has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nognet.config import StudyConfig
from nognet.errors import EgressError
from nognet.fit.budget import ledger_of
from nognet.privacy.ledger_balance import spent_with_round
from nognet.privacy.policy import stricter
from nognet.wire.records import MaskedTrainReply, TrainReply, TrainTask
from nognet_client.egress.forms import NumberForm
from nognet_client.site import Site


@dataclass(frozen=True)
class Spending:
    """What may be told of a round's privacy, and what may not.

    Attributes:
        numbers: Forms of epsilon and delta; none without privacy.
        charged: Epsilon of the patient charged most, over all studies, for the receipt alone.
    """

    numbers: Mapping[str, NumberForm] = field(default_factory=dict)
    charged: float | None = None


def spending_of(
    task: TrainTask, reply: TrainReply | MaskedTrainReply, site: Site, study: StudyConfig
) -> Spending:
    """Read from the ledger what the round's reply may say.

    A reply that is kept says what had been spent when it was made; each time that the round was
    trained is one value that it may say.

    Raises:
        EgressError: nothing that was charged and taken stands behind the round.
        PrivacyError: the ledger can't be used.
    """
    settings = stricter(study.privacy, site.config.privacy)
    if settings is None:
        return Spending()
    entries = ledger_of(site.config).entries()
    spent = spent_with_round(entries, task.run_token, task.round_number, settings.delta)
    if not spent:
        raise EgressError(
            f"{site.config.name}: round {task.round_number} of run {task.run_token[:8]} was "
            "trained under privacy, and the ledger has no charge of it that was taken; this is a "
            "defect of nognet, or another ledger was put in place meanwhile",
            code="not-charged",
        )
    charged = [found.charged for found in spent if found.of_run == reply.epsilon]
    return Spending(
        {
            "epsilon": NumberForm.among(found.of_run for found in spent),
            "delta": NumberForm.among([settings.delta]),
        },
        charged[-1] if charged else None,
    )
