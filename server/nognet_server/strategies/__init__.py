"""The strategies of `study.yaml`: the replies of a round in, new global weights out.

    replies -> aggregate (enough of them? in order of site names) -> the rule -> checked weights

A rule is a function of its configuration and a `RoundInput`; what it keeps between rounds goes in
and comes out with it. A new strategy is a model in `nognet.config.strategies`, a file here, and a
line in `registry.RULES`.
"""

from nognet_server.strategies.aggregation import aggregate, shares_of
from nognet_server.strategies.registry import RULES
from nognet_server.strategies.sending import reply_form, train_messages

__all__ = ["RULES", "aggregate", "reply_form", "shares_of", "train_messages"]
