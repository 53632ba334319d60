"""What of a run's model is this site's own: local parameters, personal model, their place on disk.

shared weights + the site's local ones -> training -> shared weights out, local ones kept
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

import nognet
from nognet.config import SiteConfig, StudyConfig
from nognet.data.store import PreparedSite
from nognet.errors import ConfigError, WireError
from nognet.fit.model_file import load_model, save_model
from nognet.fit.parts import local_spec, part_of, shared_spec, whole
from nognet.fit.personal import ditto_round, fine_tuned
from nognet.fit.round_steps import Progress
from nognet.fit.weights import Weights, initial_weights, weight_spec
from nognet.privacy.policy import stricter
from nognet.wire.flat import FlatWeights, pack, unpack
from nognet_client.personal.state import Kind, PersonalState

_log = logging.getLogger("nognet.client")


@dataclass(frozen=True)
class OwnModel:
    """A site's own part in the model of one run.

    Attributes:
        study: What of the model stays at sites, and which personal model they make.
        site: Where the state is, and whether its model may be shared.
        prepared: Its pairs.
        run_token: The run.
    """

    study: StudyConfig
    site: SiteConfig
    prepared: PreparedSite
    run_token: str

    @property
    def state(self) -> PersonalState:
        """What the site keeps of this run."""
        return PersonalState(self.site.state, self.run_token)

    def whole_after(self, shared: FlatWeights, round_number: int) -> Weights:
        """Join shared weights with the local ones as they were after a round.

        A site that took no part up to that round has the study's first local weights.

        Raises:
            WireError: the vector is not of the study's shared parameters, or what was kept is
                damaged.
            PrivacyError: the study or the site wants privacy, and the local weights were trained
                without: what is trained or measured from them is covered by no epsilon.
        """
        received, spec = unpack(shared, shared_spec(self.study)), local_spec(self.study)
        local = None
        if spec:
            private = stricter(self.study.privacy, self.site.privacy) is not None
            local = self.state.latest("local", spec, upto=round_number, noised=private)
        if spec and local is None and round_number > 0:
            _log.info("%s: no local parameters of this run yet; the study's first", self.site.name)
        return whole(self.study, received, local)

    def correction(self, shared: FlatWeights | None) -> Weights | None:
        """Give SCAFFOLD's correction for all parameters: none for those that stay here."""
        if shared is None:
            return None
        spec = local_spec(self.study)
        zeros = {item.name: torch.zeros(item.shape) for item in spec}
        return whole(self.study, unpack(shared, shared_spec(self.study)), zeros)

    def shared(self, weights: Weights) -> FlatWeights:
        """Lay out what leaves the site: the shared parameters alone."""
        spec = shared_spec(self.study)
        return pack(part_of(weights, spec), spec)

    def train_personal(self, start: Weights, round_number: int) -> Weights | None:
        """Train Ditto's personal model for a round, beside the round's own training.

        Raises:
            TrainingError: as `nognet.fit.personal.ditto_round`.
        """
        if self.study.personalisation.ditto_lambda is None:
            return None
        spec = weight_spec(self.study.network)
        kept = self.state.latest("ditto", spec, upto=round_number - 1)
        personal = kept or self._first(start)
        _log.info("%s: round %d, personal model (Ditto)", self.site.name, round_number)
        return ditto_round(
            self.study,
            self.site,
            self.prepared,
            personal,
            towards=start,
            round_number=round_number,
        )

    def _first(self, start: Weights) -> Weights:
        """What a personal model begins with: the study's first weights, where a site can draw them.

        Those that the coordinator pre-trained or read are the global ones of the first round.
        """
        if self.study.init.name == "random":
            return initial_weights(self.study.network, self.study.seed)
        return start

    def keep(
        self,
        trained: Weights,
        personal: Weights | None,
        round_number: int,
        *,
        noised: bool = False,
    ) -> None:
        """Keep what is the site's own after a round, before anything is answered.

        Args:
            trained: All weights after the round's training.
            personal: Ditto's, trained without noise always.
            round_number: The round.
            noised: Whether `trained` comes of noised steps.

        Raises:
            WireError: a number of it is not finite or far too large: the training diverged. Then
                nothing is kept, and the next round goes on with what was there before.
            OSError: the state folder can't be written.
        """
        spec, local = weight_spec(self.study.network), local_spec(self.study)
        kept: list[tuple[Kind, Weights, bool]] = []
        if local:
            kept.append(("local", part_of(trained, local), noised))
        if personal is not None:
            kept.append(("ditto", personal, False))
        if self.study.personalisation.cross_site == "local" and self.site.share_models:
            kept.append(("trained", trained, False))
        for kind, weights, _ in kept:
            pack(weights, local if kind == "local" else spec, what="what stays at the site")
        for kind, weights, is_noised in kept:
            self.state.keep(kind, round_number, weights, noised=is_noised)

    def finish(
        self, federated: Weights, round_number: int, *, progress: Progress | None = None
    ) -> Weights | None:
        """Make the site's own model after the last round and write it for `nognet predict`.

        Args:
            federated: The chosen round's weights, with the site's local ones.
            round_number: The chosen round.
            progress: Called after each step of fine-tuning.

        Returns:
            The personal model; None where the study wants none beside the federated one, or the
            site took no part in its training.
        """
        wanted = self.study.personalisation
        if not wanted.is_on:
            return None
        model: Weights | None = federated
        if wanted.ditto_lambda is not None:
            model = self.state.latest("ditto", weight_spec(self.study.network))
        elif wanted.fine_tune_steps > 0:
            _log.info("%s: fine-tuning by %d steps", self.site.name, wanted.fine_tune_steps)
            model = fine_tuned(self.study, self.site, self.prepared, federated, progress=progress)
        if model is None:
            _log.warning("%s: took no part in training, so has no personal model", self.site.name)
            return None
        self._write(model, round_number)
        return model if wanted.tunes else None

    def shareable(self, round_number: int) -> FlatWeights:
        """Give the model that may visit other sites.

        Raises:
            ConfigError: the site doesn't share, or the study doesn't ask for it.
            WireError: the site has no such model of this run, or it is damaged.
        """
        check_shares(self.study, self.site)
        spec = weight_spec(self.study.network)
        if self.study.personalisation.cross_site == "local":
            weights = self.state.latest("trained", spec)
            if weights is None:
                raise WireError("no weights trained in this run are kept", code="no-personal")
            return pack(weights, spec)
        saved = load_model(self.state.model)
        if saved.provenance.get("round") != round_number:
            raise WireError(f"{self.state.model}: of another round", code="no-personal")
        return pack(saved.weights, spec)

    def _write(self, model: Weights, round_number: int) -> None:
        save_model(
            self.state.model,
            model,
            network=self.study.network,
            roi=self.study.roi,
            provenance={
                "study": self.study.name,
                "run": self.run_token,
                "round": round_number,
                "site": self.site.name,
                "personalisation": self.study.personalisation.model_dump(mode="json"),
                "rehearsal": self.study.rehearsal,
                "nognet_version": nognet.__version__,
            },
            mode=0o600,
        )
        _log.info("%s: the site's own model is %s", self.site.name, self.state.model)


def check_shares(study: StudyConfig, site: SiteConfig) -> None:
    """Refuse to give or take visiting models, unless the study asks for it and the site agreed.

    Raises:
        ConfigError: either doesn't.
    """
    if study.personalisation.cross_site == "none":
        raise ConfigError(
            f"study '{study.name}' asks for no models to visit sites", code="not-asked"
        )
    if not site.share_models:
        raise ConfigError(
            f"site {site.name} shares no models; share_models: true in site.yaml would",
            code="not-shared",
        )
