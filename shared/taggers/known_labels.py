"""Load data for a student of a tagger: with the labels that the tagger knows, in its order."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shared.cli.errors import UserError
from shared.data.corpus import load_corpus, load_data

if TYPE_CHECKING:
    from shared.data.arguments import DataArguments
    from shared.data.corpus import Corpus
    from shared.taggers.tagger import Tagger


def load_known_labels(
    args: DataArguments, tagger: Tagger, name: str
) -> tuple[Corpus, dict[str, Corpus]]:
    """Load the data with the label ids of a tagger; the data need not have any labels.

    Parameters
    ----------
    args : DataArguments
        Labels that its flags leave out, such as rare ones, are left out, unless the tagger knows
        them.
    tagger : Tagger
    name : str
        What errors call the tagger, such as "--teacher FOLDER".

    Returns
    -------
    corpus, held_out
        As `shared.data.load_corpus`.

    Raises
    ------
    UserError
        If the data has a label that the tagger does not know.
    """
    own = load_data(args, labels_required=False)
    if unknown := sorted({*own.label_names} - {*tagger.label_names}):
        raise UserError(
            f"{name}: does not know {len(unknown):,} labels of --data: {', '.join(unknown[:5])}; "
            "leave them out with --drop_labels"
        )
    args = drop_rare_labels(args, tagger.label_names)
    return load_corpus(args, label_names=tagger.label_names, labels_required=False)


def drop_rare_labels(args: DataArguments, label_names: Sequence[str]) -> DataArguments:
    """Return the flags with all labels that they leave out, but the known ones, in `drop_labels`.

    ``--min_label_count`` does not apply where the names of the labels are given
    (`shared.data.load_data`). Its labels would count as unknown ones then.

    Parameters
    ----------
    args : DataArguments
        They are not changed.
    label_names : sequence of str
        The known labels, which stay, however rare they are.
    """
    left_out = load_data(args, labels_required=False).report["labels_left_out"]
    rare = [label for label in left_out if label not in label_names]
    args = copy.copy(args)
    args.drop_labels = list(dict.fromkeys([*args.drop_labels, *rare]))
    return args
