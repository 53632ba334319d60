"""The training messages of a round, and what their replies must carry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from flwr.app import ConfigRecord, Message
from flwr.serverapp.strategy import FedAvg, FedProx

from nognet.config import FedProxConfig, StudyConfig
from nognet.wire.records import ReplyForm, TrainTask
from nognet_server.flower_adapter import Chosen
from nognet_server.runs.state import StrategyState
from nognet_server.strategies.scaffold import corrections
from nognet_server.strategies.through_flower import EVERY_SITE


def reply_form(study: StudyConfig) -> ReplyForm:
    """Say what the study's strategy wants of a reply besides weights."""
    return ReplyForm(study.strategy.sends_control, study.strategy.sends_start_loss)


def train_messages(
    study: StudyConfig, kept: StrategyState, task: TrainTask, nodes: Mapping[str, int]
) -> dict[str, Message]:
    """Let the strategy configure a round; one message a site.

    Args:
        study: Names the strategy.
        kept: Arrays the strategy kept after the round before.
        task: What all sites are asked.
        nodes: Sites to ask, with their node ids.
    """
    own = corrections(kept) if study.strategy.sends_control else {}
    alike = [site for site in nodes if site not in own]
    messages = _configured(study, task, {site: nodes[site] for site in alike}) if alike else {}
    for site in nodes:
        if site in own:
            asked = replace(task, correction=own[site])
            messages |= _configured(study, asked, {site: nodes[site]})
    return {site: messages[site] for site in nodes}


def _configured(
    study: StudyConfig, task: TrainTask, nodes: Mapping[str, int]
) -> dict[str, Message]:
    arrays, config = task.to_records()
    names = {node_id: site for site, node_id in nodes.items()}
    # a copy of the config: strategies write into the one they are given
    messages = _asking(study).configure_train(
        task.round_number, arrays, ConfigRecord(dict(config.items())), Chosen(names)
    )
    return {names[message.metadata.dst_node_id]: message for message in messages}


def _asking(study: StudyConfig) -> FedAvg:
    """Give the strategy of Flower's that writes the messages."""
    if isinstance(study.strategy, FedProxConfig):
        return FedProx(**EVERY_SITE, proximal_mu=study.strategy.proximal_mu)
    return FedAvg(**EVERY_SITE)
