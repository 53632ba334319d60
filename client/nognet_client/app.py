"""The ClientApp that simulation and deployment run alike.

It is told by its node's configuration which site it serves (``site-config``, the path of a
`site.yaml`), and keeps nothing in memory between messages.
"""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp

from nognet.config import SiteConfig, load_site
from nognet.data.site.prepare import prepared_or_prepare
from nognet.errors import ConfigError
from nognet.wire.records import SHARE_ACTION, EvaluateTask, JoinTask, ShareTask, TrainTask
from nognet_client.evaluating import evaluate, share
from nognet_client.guard import guarded
from nognet_client.tasks import Site, Work, join, train

SITE_CONFIG = "site-config"


def build_app(work: Work) -> ClientApp:
    """Make a ClientApp that answers the four messages with the given work."""
    app = ClientApp()

    def answer_join(content: RecordDict, context: Context) -> RecordDict:
        config = _site_config(context)
        site = Site(config, prepared_or_prepare(config))
        return join(JoinTask.from_content(content), site, work).to_content()

    def answer_train(content: RecordDict, context: Context) -> RecordDict:
        config = _site_config(context)
        site = Site(config, prepared_or_prepare(config))
        return train(TrainTask.from_content(content), site, work).to_content()

    def answer_evaluate(content: RecordDict, context: Context) -> RecordDict:
        config = _site_config(context)
        site = Site(config, prepared_or_prepare(config))
        return evaluate(EvaluateTask.from_content(content), site, work).to_content()

    def answer_share(content: RecordDict, context: Context) -> RecordDict:
        config = _site_config(context)
        site = Site(config, prepared_or_prepare(config))
        return share(ShareTask.from_content(content), site).to_content()

    app.query()(guarded(answer_join))
    app.query(SHARE_ACTION)(guarded(answer_share))
    app.train()(guarded(answer_train))
    app.evaluate()(guarded(answer_evaluate))
    return app


def site_name_of(context: Context) -> str:
    """Give the name of the site that the node serves."""
    return _site_config(context).name


def _site_config(context: Context) -> SiteConfig:
    path = context.node_config.get(SITE_CONFIG)
    if not isinstance(path, str):
        raise ConfigError(
            f"the node's configuration lacks '{SITE_CONFIG}'; start the site with nognet-client"
        )
    return load_site(Path(path))


app = build_app(Work())
