"""A trained classifier of table rows: load it, and apply it to rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.errors import UserError
from shared.data.sources import Source
from shared.data.tables import TableRows, TableSchema, read_rows

if TYPE_CHECKING:
    from datasets import Dataset

    from shared.models.tabular_networks import TabularForSequenceClassification

_BATCH_ROWS = 4096


def table_dataset(rows: TableRows, n_classes: int) -> Dataset:
    """Return rows for the Trainer: ``numbers``, ``codes``, one-hot ``labels``, ``length`` (1).

    Rows that are to be predicted have no labels.
    """
    from datasets import Dataset, Features, List, Value

    columns: dict[str, Any] = {"numbers": rows.numbers, "codes": rows.codes}
    types = {"numbers": List(Value("float32")), "codes": List(Value("int64"))}
    if (rows.labels >= 0).all():
        columns["labels"] = one_hot(rows.labels, n_classes)
        types["labels"] = List(Value("float32"))
    columns = {name: list(values) for name, values in columns.items()}
    lengths = {"length": np.ones(len(rows), np.int64)}
    return Dataset.from_dict(
        columns | lengths, features=Features(types | {"length": Value("int64")})
    )


def one_hot(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Return class numbers (rows,) as a uint8 array (rows, classes)."""
    return (labels[:, None] == np.arange(n_classes)).astype(np.uint8)


class TableClassifier:
    """A trained model with the columns that it reads; `load_table_classifier` loads it.

    Attributes
    ----------
    schema : TableSchema
    model : TabularForSequenceClassification
    """

    def __init__(self, model: TabularForSequenceClassification):
        self.model = model.eval()
        self.schema = TableSchema(**model.config.table)

    def scores(self, rows: TableRows) -> np.ndarray:
        """Return the probabilities of the classes: float array (rows, classes)."""
        import torch

        scores = []
        for start in range(0, len(rows), _BATCH_ROWS):
            inputs = (
                torch.as_tensor(values[start : start + _BATCH_ROWS])
                for values in (rows.numbers, rows.codes)
            )
            with torch.no_grad():
                scores.append(self.model(*inputs).logits.exp().numpy())
        return np.concatenate(scores)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the class and the scores of each row.

        Parameters
        ----------
        rows : sequence of mappings from column to value
            A column that is missing from a row, or None, is a missing cell.

        Returns
        -------
        list of dict
            ``label`` and ``scores``, a dict of class to probability.

        Raises
        ------
        UserError
            If the value of a numeric column is no number.
        """
        if not rows:
            return []
        names = self.schema.columns
        source = Source("rows", "", names, lambda *_: ({**row} for row in rows))
        scores = self.scores(read_rows(self.schema, source, labelled=False)[0])
        labels = self.schema.label_names
        return [
            {
                "label": labels[of_row.argmax()],
                "scores": dict(zip(labels, of_row.round(6).tolist(), strict=True)),
            }
            for of_row in scores
        ]


def load_table_classifier(folder: str | Path) -> TableClassifier:
    """Load the model that a folder holds. No code from the folder runs.

    Raises
    ------
    UserError
        If the folder holds no model of table rows.
    """
    from transformers import AutoConfig

    from shared.models.tabular_networks import TabularConfig, TabularForSequenceClassification

    if not Path(folder).is_dir():
        raise UserError(f"{folder}: no such folder")
    try:
        config = AutoConfig.from_pretrained(folder)
        if not isinstance(config, TabularConfig) or not config.table:
            raise ValueError(f"is of the type {config.model_type}")
        model = TabularForSequenceClassification.from_pretrained(
            folder, config=config, use_safetensors=True
        )
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{folder}: no model of table rows ({reason})") from error
    return TableClassifier(model)
