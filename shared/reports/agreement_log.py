"""What successive models say about the same texts: it tells when labelling more no longer pays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.cli.errors import UserError
from shared.cli.files import write_json
from shared.evaluation.agreement import STABLE_KAPPA, STABLE_ROUNDS, decision_kappa, is_stable

STOP_TEXTS = 2000  # on which models are compared


class AgreementLog:
    """The agreement of each model with the one before, kept in a file between runs.

    The models are compared on up to 2,000 texts, with or without labels: those whose hashes are the
    lowest, so that they stay the same when texts are added or labelled.

    Parameters
    ----------
    path : Path
        A JSON file; it need not exist.
    single_label : bool
        Whether each text has exactly one label.

    Raises
    ------
    UserError
        If the file is not one that this class has written.
    """

    def __init__(self, path: Path, *, single_label: bool):
        self.path, self.single_label = path, single_label
        self._content: dict[str, Any] = {"rounds": [], "fitted_on": None, "decisions": {}}
        if path.is_file():
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                if content.keys() != self._content.keys():
                    raise ValueError
            except (ValueError, AttributeError) as error:
                raise UserError(f"{path}: damaged; delete it to begin again") from error
            self._content = content

    @property
    def kappas(self) -> list[float]:
        """The agreement of successive models, the latest last."""
        return [r["kappa"] for r in self._content["rounds"] if r["kappa"] is not None]

    def add(self, labels_of: Mapping[str, Sequence[str]], n_labelled: int, fitted_on: str) -> None:
        """Compare a model with the last one, unless it is the same; write the file.

        Parameters
        ----------
        labels_of : mapping of text to the labels that the model gives it
        n_labelled : int
            Number of texts that it learned from.
        fitted_on : str
            Hash of these texts and labels, or of the model.
        """
        if fitted_on == self._content["fitted_on"]:
            return
        hashes = {hashlib.blake2b(t.encode(), digest_size=8).hexdigest(): t for t in labels_of}
        stop_texts = sorted(hashes)[:STOP_TEXTS]
        decisions = {key: list(labels_of[hashes[key]]) for key in stop_texts}
        before = self._content["decisions"]
        common = [key for key in stop_texts if key in before]
        kappa = None
        if common:
            first, second = ([made[key] for key in common] for made in (before, decisions))
            names = sorted({name for labels in (*first, *second) for name in labels})
            matrices = [
                np.array([[name in labels for name in names] for labels in made], bool)
                for made in (first, second)
            ]
            kappa = round(decision_kappa(*matrices, single_label=self.single_label), 4)
        self._content["rounds"].append({"labelled": n_labelled, "kappa": kappa})
        self._content |= {"fitted_on": fitted_on, "decisions": decisions}
        write_json(self.path, self._content)

    def describe(self) -> str:
        """Return whether labelling more still changes what the model says, in one sentence."""
        if not self.kappas:
            return (
                "agreement of successive models: label these texts and repeat the command to see it"
            )
        shown = ", ".join(f"{kappa:.3f}" for kappa in self.kappas[-STABLE_ROUNDS:])
        text = f"agreement of successive models (Cohen's kappa): {shown}; "
        if is_stable(self.kappas):
            return text + (
                f"the mean of the last {STABLE_ROUNDS} is at least {STABLE_KAPPA}: labelling more "
                "hardly changes what the model says"
            )
        return text + (
            f"labelling more pays until the mean of the last {STABLE_ROUNDS} is {STABLE_KAPPA}"
        )
