"""The ClientApp that simulation and deployment run alike.

It is told by its node's configuration which site it serves (``site-config``, the path of a
`site.yaml`), and keeps nothing in memory between messages. Whatever it answers goes through the
gate (`nognet_client.egress`).
"""

from __future__ import annotations

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from nognet.config import SiteConfig
from nognet.data.site.prepare import prepared_or_prepare
from nognet.errors import WireError
from nognet.wire.records import (
    SECURE_ACTION,
    SHARE_ACTION,
    EvaluateTask,
    JoinTask,
    MaskedTrainTask,
    SecureTask,
    ShareTask,
    TrainTask,
)
from nognet_client.egress.limits import limits_of
from nognet_client.egress.release import Outgoing, site_of
from nognet_client.egress.replies import (
    UpdateCheck,
    checked_update,
    of_evaluation,
    of_joining,
    of_sharing,
    of_training,
)
from nognet_client.evaluating import evaluate, share
from nognet_client.guard import guarded
from nognet_client.masking.answers import masked_train, secure_step
from nognet_client.masking.release import of_masked_training, of_secure_step
from nognet_client.masking.rules import check_can_sum, check_may_leave_unmasked
from nognet_client.site import Site
from nognet_client.tasks import Work, agreed_study, join, train


class SiteApp(ClientApp):
    """A ClientApp that refuses a message of an unknown type as it refuses all else, on record."""

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer."""
        try:
            return super().__call__(message, context)
        except ValueError:  # Flower's own, of a type that nothing answers: the guard lets none out
            return guarded(_refuse_type)(message, context)


def build_app(work: Work, check: UpdateCheck = checked_update) -> ClientApp:
    """Make a ClientApp that answers the messages with the given work.

    Args:
        work: What the site does.
        check: Of a plain update; only a rehearsal of hostile sites gives another one.
    """
    app = SiteApp()

    def answer_join(content: RecordDict, config: SiteConfig) -> Outgoing:
        task, site = JoinTask.from_content(content), _opened(config)
        check_can_sum(task.study_json, config)
        return of_joining(task, join(task, site, work), site, work.faults)

    def answer_train(content: RecordDict, config: SiteConfig) -> Outgoing:
        task, site = TrainTask.from_content(content), _opened(config)
        check_may_leave_unmasked(task.study_json, config)
        reply, study = train(task, site, work), agreed_study(task, site)
        update = check(task, reply, study, config)
        return of_training(task, reply, site, study, update)

    def answer_evaluate(content: RecordDict, config: SiteConfig) -> Outgoing:
        task, site = EvaluateTask.from_content(content), _opened(config)
        reply, study = evaluate(task, site, work), agreed_study(task, site)
        return of_evaluation(task, reply, site, limits_of(site, study, task.split))

    def answer_share(content: RecordDict, config: SiteConfig) -> Outgoing:
        task, site = ShareTask.from_content(content), _opened(config)
        check_may_leave_unmasked(task.study_json, config)
        return of_sharing(task, share(task, site), site)

    def answer_secure(content: RecordDict, config: SiteConfig) -> Outgoing:
        task, site = SecureTask.from_content(content), _opened(config)
        return of_secure_step(task, secure_step(task, site), site)

    def answer_masked(content: RecordDict, config: SiteConfig) -> Outgoing:
        task, site = MaskedTrainTask.from_content(content), _opened(config)
        return of_masked_training(task, masked_train(task, site, work, check), site)

    app.query()(guarded(answer_join))
    app.query(SHARE_ACTION)(guarded(answer_share))
    app.query(SECURE_ACTION)(guarded(answer_secure))
    app.train()(guarded(answer_train))
    app.train(SECURE_ACTION)(guarded(answer_masked))
    app.evaluate()(guarded(answer_evaluate))
    return app


def site_name_of(context: Context) -> str:
    """Give the name of the site that the node serves."""
    return site_of(context).name


def _refuse_type(_content: RecordDict, config: SiteConfig) -> Outgoing:
    raise WireError(
        f"{config.name}: a message of a type that no study sends; it is not answered",
        code="message-type",
    )


def _opened(config: SiteConfig) -> Site:
    return Site(config, prepared_or_prepare(config))


app = build_app(Work())
