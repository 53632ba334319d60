"""The ClientApp that simulation and deployment run alike.

It is told by its node's configuration which site it serves (``site-config``, the path of a
`site.yaml`), and keeps nothing in memory between messages. Whatever it answers goes through the
gate (`nognet_client.egress`).
"""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp

from nognet.config import SiteConfig, StudyConfig
from nognet.data.site.prepare import prepared_or_prepare
from nognet.wire.records import (
    SHARE_ACTION,
    EvaluateTask,
    JoinTask,
    ShareTask,
    TrainReply,
    TrainTask,
)
from nognet_client.egress.gate import UpdateFacts
from nognet_client.egress.limits import limits_of
from nognet_client.egress.release import Outgoing, site_of
from nognet_client.egress.replies import (
    checked_update,
    of_evaluation,
    of_joining,
    of_sharing,
    of_training,
)
from nognet_client.evaluating import evaluate, share
from nognet_client.guard import guarded
from nognet_client.site import Site
from nognet_client.tasks import Work, agreed_study, join, train

UpdateCheck = Callable[[TrainTask, TrainReply, StudyConfig, SiteConfig], UpdateFacts]


def build_app(work: Work, check: UpdateCheck = checked_update) -> ClientApp:
    """Make a ClientApp that answers the four messages with the given work.

    Args:
        work: What the site does.
        check: Of a plain update; only a rehearsal of hostile sites gives another one.
    """
    app = ClientApp()

    def answer_join(content: RecordDict, config: SiteConfig) -> Outgoing:
        task, site = JoinTask.from_content(content), _opened(config)
        return of_joining(task, join(task, site, work), site, work.faults)

    def answer_train(content: RecordDict, config: SiteConfig) -> Outgoing:
        task, site = TrainTask.from_content(content), _opened(config)
        reply, study = train(task, site, work), agreed_study(task, site)
        update = check(task, reply, study, config)
        return of_training(task, reply, site, study, update)

    def answer_evaluate(content: RecordDict, config: SiteConfig) -> Outgoing:
        task, site = EvaluateTask.from_content(content), _opened(config)
        reply = evaluate(task, site, work)
        return of_evaluation(task, reply, site, limits_of(site, task.split))

    def answer_share(content: RecordDict, config: SiteConfig) -> Outgoing:
        task, site = ShareTask.from_content(content), _opened(config)
        return of_sharing(task, share(task, site), site)

    app.query()(guarded(answer_join))
    app.query(SHARE_ACTION)(guarded(answer_share))
    app.train()(guarded(answer_train))
    app.evaluate()(guarded(answer_evaluate))
    return app


def site_name_of(context: Context) -> str:
    """Give the name of the site that the node serves."""
    return site_of(context).name


def _opened(config: SiteConfig) -> Site:
    return Site(config, prepared_or_prepare(config))


app = build_app(Work())
