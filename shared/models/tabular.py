"""The classifier of table rows: its flags, and how it is built for training rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from shared.cli.arguments import flag

if TYPE_CHECKING:
    from shared.data.tables import TableRows, TableSchema
    from shared.models.tabular_networks import TabularForSequenceClassification


@dataclass
class TabularArguments:
    """Flags of the networks; see `shared.models.tabular_networks.TabularConfig`."""

    hidden_size: int = flag(64, "Width of the hidden layers (default: 64).", least=1, most=65_536)
    num_layers: int = flag(2, "Number of hidden layers (default: 2).", least=0, most=100)
    activation: Literal["elu", "relu", "gelu", "silu", "tanh"] = flag(
        "elu", "Function of the hidden layers (default: elu)."
    )
    normalization: Literal["batch", "layer", "none"] = flag(
        "batch", "Normalisation before each activation (default: batch)."
    )
    dropout: float = flag(
        0.3, "Dropout rate after each hidden layer (default: .3).", least=0, below=1
    )
    initialization: Literal["kaiming", "xavier", "lsuv", "small", "large"] = flag(
        "kaiming",
        "First weights of the linear layers: normal with variance 2 / inputs (kaiming), uniform "
        "with variance 2 / (inputs + outputs) (xavier), orthogonal and scaled on a batch (lsuv), "
        "normal with standard deviation .01 (small) or 1 (large) (default: kaiming).",
    )
    members: int = flag(
        8,
        "Networks that are trained together and whose probabilities are averaged (default: 8).",
        least=1,
        most=1000,
    )
    scaling: Literal["standard", "robust"] = flag(
        "standard",
        "Numbers as networks read them: mean 0 and standard deviation 1 (standard), or median 0, "
        "middle half of width 1, and outliers drawn in to 3 (robust) (default: standard).",
    )
    embedding_size: int = flag(
        8, "Width of the vector of a category (default: 8).", least=1, most=4096
    )


def build_tabular_model(
    args: TabularArguments, schema: TableSchema, rows: TableRows
) -> TabularForSequenceClassification:
    """Build an ensemble with random weights, and fit its preprocessing to training rows.

    Parameters
    ----------
    args : TabularArguments
    schema : TableSchema
        Its columns and classes become a part of the config.
    rows : TableRows
        The training rows.
    """
    import torch

    from shared.models.first_weights import initialize_layers
    from shared.models.tabular_networks import TabularConfig, TabularForSequenceClassification

    numbers, codes, names = rows.numbers, rows.codes, schema.label_names
    config = TabularConfig(
        n_numbers=numbers.shape[1],
        category_counts=schema.category_counts,
        embedding_size=args.embedding_size,
        hidden_size=args.hidden_size,
        num_layers=args.num_layers,
        activation=args.activation,
        normalization=args.normalization,
        dropout=args.dropout,
        members=args.members,
        scaling=args.scaling,
        table=schema.as_dict(),
        problem_type="single_label_classification",
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )
    model = TabularForSequenceClassification(config)
    model.fit_preprocessing(numbers, codes)
    batch = torch.as_tensor(numbers[:512]), torch.as_tensor(codes[:512])
    for member in model.members:
        layers = [layer for layer in member.modules() if isinstance(layer, torch.nn.Linear)]
        initialize_layers(layers, args.initialization, partial(member, *batch))
    return model
