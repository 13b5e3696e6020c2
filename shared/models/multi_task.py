"""A model of several tasks: one encoder, one output layer for each task, further inputs.

`MultiTaskModel` is a `PooledForSequenceClassification` whose outputs are those of all tasks side by
side. Numbers and categories of a row can stand beside the pooled vector of its text.

To load a saved model, import this module, which registers the classes with transformers. Of this
project, this file must import only `heads`, and that relatively: `save_pretrained` copies both into
the folder of the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput

from .heads import PooledClassifierConfig, PooledForSequenceClassification, ProblemType

# Adam moves a weight by about the learning rate in a step, which is set for the encoder. At 1e-4
# and with this factor, a log variance moves by .01 in a step.
VARIANCE_RATE = 100.0


class MultiTaskConfig(PooledClassifierConfig):
    """Config of `MultiTaskModel`: that of the classifier below, and its tasks and inputs.

    Attributes
    ----------
    tasks : one mapping for each task: ``name``, ``problem`` (single_label, multi_label or
        regression), ``labels`` (names of its outputs) and, for a regression, ``mean`` and
        ``scale``: the number is ``mean + scale * output``. A multi-label task that was trained has
        a ``threshold``: a label applies if its probability is at or above it.
    numbers : for each column of numbers its name, and mean and standard deviation of the training
        rows. Each is two inputs: the scaled number, and 1 if it is missing.
    categories : for each column of categories its name, and its values in the training rows.
    category_width : width of the vector of a category.
    weights_by_uncertainty : whether the model learns a log variance for each task (Kendall et al.
        2018), by which `shared.training.MultiTaskLoss` weighs the losses.
    text_columns : the columns that make up the text.
    """

    model_type = "multi-task"

    tasks: list[dict[str, Any]] | tuple = ()
    numbers: list[list[Any]] | tuple = ()
    categories: list[list[Any]] | tuple = ()
    category_width: int = 16
    weights_by_uncertainty: bool = False
    text_columns: list[str] | tuple = ()


@dataclass
class MultiTaskOutput(SequenceClassifierOutput):
    """Output of `MultiTaskModel`.

    Attributes
    ----------
    log_variances : tensor of shape (tasks,), only in training, and only if the model has them.
    """

    log_variances: torch.Tensor | None = None


class MultiTaskModel(PooledForSequenceClassification):
    """An encoder, pooling, and the outputs of several tasks (Caruana 1997, "Multitask Learning").

    The tasks share the encoder, pooling and, if there are any, hidden layers; each has its own rows
    of the output layer. It computes no loss itself: `shared.training.MultiTaskLoss` does.

    Parameters
    ----------
    config : MultiTaskConfig
    encoder : PreTrainedModel, optional
        Encoder or decoder with its weights. None makes one with random weights from the config.
    """

    config_class = MultiTaskConfig

    def __init__(self, config: MultiTaskConfig, encoder: PreTrainedModel | None = None):
        super().__init__(config, encoder)
        # Code 0, a value that no training row has, is a vector of zeros.
        self.category_embeddings = torch.nn.ModuleList(
            torch.nn.Embedding(len(values) + 1, config.category_width, padding_idx=0)
            for _, values in config.categories
        )
        self.log_variances = None
        if config.weights_by_uncertainty:
            self.log_variances = torch.nn.Parameter(torch.zeros(len(config.tasks)))
        self.post_init()

    @classmethod
    def of_tasks(
        cls,
        encoder: PreTrainedModel,
        tasks: Sequence[Mapping[str, Any]],
        *,
        numbers: Sequence[Sequence[Any]] = (),
        categories: Sequence[Sequence[Any]] = (),
        category_width: int = 16,
        **settings: Any,
    ) -> MultiTaskModel:
        """Put new heads on a loaded encoder (`shared.models.load_encoder`).

        Parameters
        ----------
        encoder : PreTrainedModel
            Its weights are not changed.
        tasks, numbers, categories, category_width
            As in `MultiTaskConfig`.
        **settings
            Further settings of the config.
        """
        names = [f"{task['name']}: {label}" for task in tasks for label in task["labels"]]
        config = MultiTaskConfig(
            text_config=encoder.config.to_dict(),
            id2label=dict(enumerate(names)),
            label2id={name: i for i, name in enumerate(names)},
            pad_token_id=encoder.config.pad_token_id,
            tasks=[dict(task) for task in tasks],
            numbers=[list(column) for column in numbers],
            categories=[list(column) for column in categories],
            category_width=category_width,
            further_width=2 * len(numbers) + category_width * len(categories),
            **settings,
        )
        return cls(config, encoder)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        numbers: torch.Tensor | None = None,
        categories: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> MultiTaskOutput:
        """Score rows.

        Parameters
        ----------
        input_ids, attention_mask, inputs_embeds
            As for `PooledForSequenceClassification`.
        labels
            Must be None: the loss of several tasks is that of `shared.training.MultiTaskLoss`.
        numbers : float tensor of shape (rows, 2 * columns of numbers), optional
        categories : int64 tensor of shape (rows, columns of categories), optional
            None, where there are such columns: all values are missing.

        Returns
        -------
        MultiTaskOutput
            Logits of shape (rows, outputs of all tasks); in training, (dropout_samples * rows,
            outputs).
        """
        if labels is not None:
            raise ValueError("the loss of several tasks is MultiTaskLoss; pass no labels")
        vectors, _ = self.pool(input_ids, attention_mask, inputs_embeds, **kwargs)
        further = [vectors]
        if self.config.numbers:
            if numbers is None:
                missing = vectors.new_tensor([0.0, 1.0] * len(self.config.numbers))
                numbers = missing.expand(len(vectors), -1)
            further.append(numbers.to(vectors.dtype))
        if categories is None:
            categories = torch.zeros(
                (len(vectors), len(self.category_embeddings)),
                dtype=torch.int64,
                device=vectors.device,
            )
        for i, embedding in enumerate(self.category_embeddings):
            further.append(embedding(categories[:, i]).to(vectors.dtype))
        logits = self.head_logits(torch.cat(further, dim=1))
        variances = None
        # Not in an evaluation, where the Trainer collects all outputs.
        if self.training and self.log_variances is not None:
            variances = self.log_variances * VARIANCE_RATE
        return MultiTaskOutput(logits=logits, log_variances=variances)

    def task_model(self, number: int, **settings: Any) -> PooledForSequenceClassification:
        """Return a plain classifier of one task, with the same encoder and outputs.

        Parameters
        ----------
        number : int
            Of the task.
        **settings
            Further settings of its config.

        Raises
        ------
        ValueError
            If the model reads further columns, which a plain classifier cannot.
        """
        if self.config.further_width:
            raise ValueError("a model that reads further columns has no plain classifiers")
        task = self.config.tasks[number]
        start = sum(len(other["labels"]) for other in self.config.tasks[:number])
        head = ("pooling", "last_tokens", "n_layers", "layer_pooling", "head_sizes", "head_dropout")
        problems: dict[str, ProblemType] = {
            "single_label": "single_label_classification",
            "multi_label": "multi_label_classification",
            "regression": "regression",
        }
        model = PooledForSequenceClassification.from_encoder(
            self.encoder,
            task["labels"],
            problem_type=problems[task["problem"]],
            **{name: getattr(self.config, name) for name in head},
            **settings,
        )
        own = self.state_dict()
        rows = slice(start, start + len(task["labels"]))
        model.load_state_dict(
            {
                name: own[name][rows] if name.startswith("classifier.") else own[name]
                for name in model.state_dict()
            }
        )
        return model.to(self.device)

    @torch.no_grad()
    def _init_weights(self, module: torch.nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, MultiTaskModel) and module.log_variances is not None:
            init.zeros_(module.log_variances)


# `exist_ok`: no error if a copy of this file, from the folder of a model, is imported, too.
AutoConfig.register(MultiTaskConfig.model_type, MultiTaskConfig, exist_ok=True)
AutoModel.register(MultiTaskConfig, MultiTaskModel, exist_ok=True)
# Saving a model copies this file beside its weights, and names it in the config (``auto_map``).
MultiTaskConfig.register_for_auto_class()
MultiTaskModel.register_for_auto_class("AutoModel")
