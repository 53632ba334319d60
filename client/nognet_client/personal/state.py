"""Weights that are a site's own, on disk: `state/personal/<run>/`, a file a kind and round.

A round's training begins with what was there *before* that round, by number. So a task that is sent
again, a crash between two writes, or a coordinator that goes back to an earlier checkpoint never
has a round count twice: it is trained anew from the same weights, to the same bits.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

import safetensors
import safetensors.torch
import torch

from nognet.errors import PrivacyError, WireError
from nognet.files import atomic_path
from nognet.fit.personal import MODEL_NAME, personal_folder
from nognet.fit.weights import TensorSpec, Weights, check_weights

Kind = Literal["local", "ditto", "trained"]
"""Local parameters after a round's training; Ditto's personal model; all weights as trained."""
_KEY = "nognet-personal"
KEPT_ROUNDS = 3
"""Of whole models; local parameters are small, and those of the best round are wanted."""


class PersonalState:
    """One run's weights of a site, and its personal model file."""

    def __init__(self, state_folder: Path, run_token: str) -> None:
        self.folder = personal_folder(state_folder, run_token)

    @property
    def model(self) -> Path:
        """Where the site's own model is, for `nognet predict`."""
        return self.folder / MODEL_NAME

    def latest(
        self,
        kind: Kind,
        spec: tuple[TensorSpec, ...],
        *,
        upto: int | None = None,
        noised: bool = False,
    ) -> Weights | None:
        """Read the weights of the last round, or of the last one up to a number; None without any.

        Args:
            kind: Of weights.
            spec: What they have to be.
            upto: The last round that counts; None: all do.
            noised: Whether they have to come of noised steps alone.

        Raises:
            WireError: the file is damaged or of another network.
            PrivacyError: they have to be noised, and are not (``open-local-parts``).
        """
        rounds = [number for number in self._rounds(kind) if upto is None or number <= upto]
        return self._read(kind, max(rounds), spec, noised=noised) if rounds else None

    def keep(
        self, kind: Kind, round_number: int, weights: Weights, *, noised: bool = False
    ) -> None:
        """Keep the weights after a round, and forget rounds that come after it.

        Args:
            kind: Of weights.
            round_number: That made them.
            weights: To be kept.
            noised: Whether they come of noised steps alone; this is kept with them.

        Raises:
            OSError: the folder can't be written.
        """
        header = json.dumps({"kind": kind, "round": round_number, "noised": noised})
        tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
        with atomic_path(self._path(kind, round_number), mode=0o600) as temporary:
            safetensors.torch.save_file(tensors, temporary, metadata={_KEY: header})
        rounds = self._rounds(kind)
        old = [] if kind == "local" else [n for n in rounds if n <= round_number][:-KEPT_ROUNDS]
        for number in (*old, *(n for n in rounds if n > round_number)):
            self._path(kind, number).unlink(missing_ok=True)

    def _read(
        self, kind: Kind, number: int, spec: tuple[TensorSpec, ...], *, noised: bool
    ) -> Weights:
        path = self._path(kind, number)
        try:
            with safetensors.safe_open(path, framework="pt") as opened:
                header = json.loads((opened.metadata() or {})[_KEY])
                found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  no dict
            is_noised = header.pop("noised", False)  # what earlier releases kept doesn't say so
        except (safetensors.SafetensorError, OSError, KeyError, ValueError, AttributeError) as err:
            raise _damaged(path, type(err).__name__) from err
        if header != {"kind": kind, "round": number}:
            raise _damaged(path, "another kind or round inside")
        if noised and is_noised is not True:
            raise PrivacyError(
                f"{path}: trained without noise, or by an earlier release, which didn't note it; "
                "what leaves under privacy would depend on it: begin a new run, or remove all of "
                f"{self.folder}/*.{kind}",
                code="open-local-parts",
            )
        ordered = {item.name: found[item.name] for item in spec if item.name in found}
        check_weights(ordered if len(ordered) == len(found) else found, spec)
        if not all(bool(torch.isfinite(tensor).all()) for tensor in ordered.values()):
            raise _damaged(path, "a number that is not finite")
        return ordered

    def _rounds(self, kind: Kind) -> list[int]:
        pattern = re.compile(rf"(\d{{5,}})\.{kind}")
        found = [pattern.fullmatch(path.name) for path in self.folder.glob(f"*.{kind}")]
        return sorted(int(match.group(1)) for match in found if match)

    def _path(self, kind: Kind, number: int) -> Path:
        return self.folder / f"{number:05d}.{kind}"


def _damaged(path: Path, found: str) -> WireError:
    return WireError(
        f"{path}: not weights that this site kept, or damaged ({found}); remove it to go on from "
        "the round before",
        code="bad-personal",
    )
