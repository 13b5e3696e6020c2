"""The model of several tasks: its flags, and how it is built for their rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.cli.arguments import flag
from shared.models.head_arguments import HeadArguments, head_settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from shared.data.tasks import TaskData
    from shared.models.multi_task import MultiTaskModel


@dataclass
class TaskModelArguments(HeadArguments):
    """Flags of a `MultiTaskModel`."""

    category_width: int = flag(
        16, "Width of the vector of a category (default: 16).", least=1, most=4096
    )


def build_multi_task_model(args: Any, encoder: PreTrainedModel, data: TaskData) -> MultiTaskModel:
    """Put an output layer for each task on an encoder, and the inputs beside the text.

    Parameters
    ----------
    args : TaskModelArguments with `task_weighting`
        With ``--task_weighting uncertainty`` the model learns the weights of the losses.
    encoder : PreTrainedModel
        Becomes a part of the model.
    data : TaskData
        Its tasks and columns become a part of the config.
    """
    from shared.models.multi_task import MultiTaskModel

    return MultiTaskModel.of_tasks(
        encoder,
        [vars(task) for task in data.tasks],
        numbers=[(column, *scale) for column, scale in data.further.numbers.items()],
        categories=list(data.further.categories.items()),
        category_width=args.category_width,
        weights_by_uncertainty=args.task_weighting == "uncertainty",
        text_columns=data.text_columns,
        **head_settings(args),
    )
