"""What the messages of a secure sum may hold on their way out, and what their receipts say."""

from __future__ import annotations

from nognet.config import parse_study_json
from nognet.fit.parts import shared_spec
from nognet.secagg.quantise import TAIL
from nognet.wire.flat import flat_length
from nognet.wire.records import MASKED, ROUND_KEY, MaskedTrainTask, SecureReply, SecureTask
from nognet_client.egress.counts import n_patients
from nognet_client.egress.forms import Form, NumberForm, VectorForm
from nognet_client.egress.receipt import About, Facts
from nognet_client.egress.release import Outgoing
from nognet_client.egress.spending import spending_of
from nognet_client.masking.answers import Masked
from nognet_client.site import Site

_LARGEST = 1e9


def of_secure_step(task: SecureTask, reply: SecureReply, site: Site) -> Outgoing:
    """Prepare keys, sealed shares, a signature or shares to leave: no number of a patient's.

    Raises:
        WireError: the rows hold more than the step's columns of a few bytes each.
    """
    rows = SecureReply.from_content(reply.to_content()).rows
    name, session = site.config.name, task.session
    texts = SecureReply(name, task.step, task.round_number, session, rows).texts()
    about = About(f"secure-{task.step}", task.run_token, task.round_number)
    return Outgoing(reply.to_content(), Form(texts), about, Facts())


def of_masked_training(task: MaskedTrainTask, masked: Masked, site: Site) -> Outgoing:
    """Prepare a masked update to leave; the receipt says how long the plain one was and its noise.

    Raises:
        EgressError, PrivacyError: as `spending_of`.
    """
    plain, reply = masked.plain, masked.reply
    study = parse_study_json(task.task.study_json)
    numbers = {"seconds": NumberForm(0.0, _LARGEST)}
    spending = spending_of(task.task, reply, site, study)
    numbers |= spending.numbers
    words = VectorForm(flat_length(shared_spec(study)) + TAIL, str(reply.words.dtype))
    texts: dict[str, str | int | bool] = {
        "site": site.config.name,
        ROUND_KEY: task.task.round_number,
        "session": task.session,
    }
    form = Form(texts, {MASKED: words}, numbers)
    facts = Facts(
        counts={
            "n-pairs": len(site.prepared.records("train")),
            "n-patients": n_patients(site.prepared, "train"),
        },
        epsilon=plain.epsilon,
        epsilon_charged=spending.charged,
        delta=plain.delta,
        update=masked.update,
        noise=masked.noise,
    )
    about = About("train", task.task.run_token, task.task.round_number)
    return Outgoing(reply.to_content(), form, about, facts)
