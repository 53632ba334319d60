"""The ClientApp that simulation and deployment run alike.

It is told by its node's configuration which site it serves (``site-config``, the path of a
`site.yaml`), and keeps nothing in memory between messages.
"""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp

from nognet.config import SiteConfig, load_site
from nognet.data.store import INDEX_NAME, PreparedSite, open_store
from nognet.errors import ConfigError
from nognet.wire.records import EvaluateTask, JoinTask, TrainTask
from nognet_client.guard import guarded
from nognet_client.tasks import Site, Work, evaluate, join, train

SITE_CONFIG = "site-config"


def build_app(work: Work) -> ClientApp:
    """Make a ClientApp that answers the three messages with the given work."""
    app = ClientApp()

    def answer_join(content: RecordDict, context: Context) -> RecordDict:
        config = _site_config(context)
        return join(JoinTask.from_content(content), Site(config, _prepared(config))).to_content()

    def answer_train(content: RecordDict, context: Context) -> RecordDict:
        config = _site_config(context)
        site = Site(config, _opened(config))
        return train(TrainTask.from_content(content), site, work).to_content()

    def answer_evaluate(content: RecordDict, context: Context) -> RecordDict:
        config = _site_config(context)
        site = Site(config, _opened(config))
        return evaluate(EvaluateTask.from_content(content), site, work).to_content()

    app.query()(guarded(answer_join))
    app.train()(guarded(answer_train))
    app.evaluate()(guarded(answer_evaluate))
    return app


def _site_config(context: Context) -> SiteConfig:
    path = context.node_config.get(SITE_CONFIG)
    if not isinstance(path, str):
        raise ConfigError(
            f"the node's configuration lacks '{SITE_CONFIG}'; start the site with nognet-client"
        )
    return load_site(Path(path))


def _prepared(config: SiteConfig) -> PreparedSite:
    """Bring the store up to date with the site's files; what is unchanged is reused.

    A store that was written without files (`nognet phantom --roi`) is used as it is.
    """
    if not config.studies.exists() and (config.cache / INDEX_NAME).is_file():
        return open_store(config.cache)
    from nognet.data.prepare import prepare_site

    return prepare_site(config)


def _opened(config: SiteConfig) -> PreparedSite:
    """Open the store as the site joined with it; prepare it if it is gone."""
    if (config.cache / INDEX_NAME).is_file():
        return open_store(config.cache)
    return _prepared(config)


app = build_app(Work())
