"""Which rule stands behind a strategy's name."""

from __future__ import annotations

from collections.abc import Mapping

from nognet_server.strategies.adaptive import fedadagrad, fedadam, fedyogi
from nognet_server.strategies.averaging import fedavg, fedavgm, fedprox
from nognet_server.strategies.bulyan import bulyan
from nognet_server.strategies.krum import krum, multikrum
from nognet_server.strategies.order_statistics import fedmedian, fedtrimmedavg
from nognet_server.strategies.qfedavg import qfedavg
from nognet_server.strategies.rule import Rule
from nognet_server.strategies.scaffold import scaffold

RULES: Mapping[str, Rule] = {
    "fedavg": fedavg,
    "fedprox": fedprox,
    "fedavgm": fedavgm,
    "fedadagrad": fedadagrad,
    "fedadam": fedadam,
    "fedyogi": fedyogi,
    "fedmedian": fedmedian,
    "fedtrimmedavg": fedtrimmedavg,
    "krum": krum,
    "multikrum": multikrum,
    "bulyan": bulyan,
    "qfedavg": qfedavg,
    "scaffold": scaffold,
}
