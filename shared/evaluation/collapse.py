"""Whether a training on unlabelled texts has collapsed, judged without further labelled rows.

A model that learns from its own predictions can drift until one class takes almost all texts, or
until no label applies to any. Its loss is then low, so the training itself does not show it. The
predictions do, compared with those of the supervised model that the training started from.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from shared.evaluation.metrics import f1_scores

# The limits are far from what a good training does (its predictions differ from the supervised
# ones, too, often by a quarter of the texts) and near what a collapse does. A false alarm costs the
# gain of the training, but never more, since the supervised weights stay.
LOST_CLASS = 0.2  # a class is lost if it keeps less than this share of its texts ...
LOST_SHARE = 0.15  # ... and lost classes are a collapse from this share of all predicted labels on
FEWEST_TEXTS = 5  # fewer texts of the lost classes than these may have left them by chance
EXCESS = 3  # so many times the labels per text that the supervised model and the examples have
FORGOTTEN = 0.8  # the F1 on the examples falls below this share of that of the supervised model


def describe_collapse(
    supervised: Mapping[str, np.ndarray],
    trained: Mapping[str, np.ndarray],
    y_train: np.ndarray,
    label_names: Sequence[str],
) -> str | None:
    """Return what shows that a training on unlabelled texts has collapsed, or None.

    A collapse is one of these:

    - classes (multilabel: labels) that the supervised model predicts for some unlabelled texts and
      that the examples have are now hardly predicted, and together they were a large part;
    - far more labels per text are predicted than before and than the examples have;
    - the labels of the examples are forgotten.

    The share of a class before is the smaller one of its shares in the predictions of the
    supervised model and in the examples. So a class that is rare in either may become rare: the
    examples may be balanced where the texts are not, and a model of few examples may prefer a
    class. Classes that grow are no sign in themselves.

    Parameters
    ----------
    supervised, trained : mapping of "train" and "unlabelled" to bool array (rows, labels)
        Labels that the supervised model and the trained one predict for the examples and for
        unlabelled texts.
    y_train : array of shape (rows, labels)
        Multi-hot labels of the examples. Without any, classes are compared with the predictions of
        the supervised model alone.
    label_names : sequence of str

    Returns
    -------
    str or None
        A part of a sentence, such as "'neg' fell from 48.0% to 1.0% of the unlabelled texts".
    """
    before = supervised["unlabelled"].mean(axis=0)  # (labels,), texts per text
    after = trained["unlabelled"].mean(axis=0)
    examples = np.mean(y_train, axis=0) if len(y_train) else before
    expected = np.minimum(before, examples)
    lost = after < LOST_CLASS * expected
    n_lost = len(supervised["unlabelled"]) * expected[lost].sum()
    if expected[lost].sum() > LOST_SHARE * expected.sum() and n_lost >= FEWEST_TEXTS:
        worst = int(np.argmax(np.where(lost, expected, -1)))
        others = f", and {lost.sum() - 1:,} others" if lost.sum() > 1 else ""
        return (
            f"{label_names[worst]!r} fell from {before[worst]:.1%} to {after[worst]:.1%} of the "
            f"unlabelled texts{others}"
        )
    most = max(before.sum(), examples.sum())
    if after.sum() > EXCESS * most:
        return f"{after.sum():.1f} labels per unlabelled text are predicted, {most:.1f} before"
    if not len(y_train):
        return None
    f1 = {
        name: f1_scores(y_train, predicted["train"])["micro_f1"]
        for name, predicted in (("before", supervised), ("after", trained))
    }
    if f1["after"] < FORGOTTEN * f1["before"]:
        return (
            f"the labels of the training texts are forgotten: micro F1 {f1['after']:.2f} on them, "
            f"{f1['before']:.2f} before"
        )
    return None
