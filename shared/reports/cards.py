"""A model card: what the model is, what it was measured on, and the command that made it."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli.files import atomic_write
from shared.cli.launch import machine
from shared.models.sources import DEFAULT_MODEL, DEFAULT_MODEL_ON_HUB

if TYPE_CHECKING:
    from shared.data.splits import Split


CARD_METRICS = (
    "test_accuracy",
    "test_micro_f1",
    "test_micro_f1_low",
    "test_micro_f1_high",
    "test_macro_f1",
    "test_average_precision",
    "baseline_micro_f1",
    "baseline_macro_f1",
)


@dataclass(frozen=True)
class TaggerCard:
    """The model card of a tagger: what it says beside the figures of a run.

    Attributes
    ----------
    base_model : str, optional
        What was fine-tuned. Without it and without `register_module` the folder holds no model,
        and the card does not say how to load one.
    register_module : str, optional
        The module to import so that transformers knows the architecture of a saved model that is
        this project's own.
    max_length : int, optional
        Tokens of a text that the model reads. None: all.
    limits : str, optional
        In place of the usual sentences on what to expect of the model.
    """

    base_model: str | None = None
    register_module: str | None = None
    max_length: int | None = None
    limits: str | None = None

    def write(
        self,
        folder: Path,
        split: Split,
        metrics: Mapping[str, Any],
        report: str,
        *,
        uses_thresholds: bool,
    ) -> None:
        """Write ``README.md``.

        Parameters
        ----------
        folder : Path
            The model's folder.
        split : Split
            What the model was trained and tested on.
        metrics : mapping
            Those of `CARD_METRICS` are shown.
        report : str
            The per-label report, shown verbatim.
        uses_thresholds : bool
            A label applies where its score reaches its threshold; otherwise the best one applies.
        """
        corpus = split.corpus
        write_model_card(
            folder,
            title=f"{Path(corpus.report['source']).name.split('.')[0]} tagger",
            base_model=self.base_model,
            description="Gives a text any of "
            f"{len(corpus.label_names)} labels, each with a score from 0 to 1.",
            data=corpus.describe(),
            label_names=corpus.label_names,
            metrics={name: metrics[name] for name in CARD_METRICS if name in metrics},
            report=report,
            usage=self._usage(folder, uses_thresholds),
            limits=self.limits or self._limits(len(split.labels["train"])),
        )

    def _usage(self, folder: Path, uses_thresholds: bool) -> str | None:
        if not (self.base_model or self.register_module):
            return None
        register = ""
        if self.register_module:
            register = f"import {self.register_module}  # registers the architecture\n"
        rule = "The label with the highest score applies."
        if uses_thresholds:
            rule = (
                "A label applies where its score reaches its threshold, "
                "`tagger.model.config.thresholds`."
            )
        return f"""```python
{register}from transformers import pipeline

tagger = pipeline("text-classification", model="{folder}", top_k=None)
tagger("Tokenizer drops the last word of every line", truncation=True)
```

{rule}"""

    def _limits(self, n_train: int) -> str:
        reads = (
            f"It reads the first {self.max_length} tokens of a text. " if self.max_length else ""
        )
        return (
            f"Trained on {n_train:,} texts of one source; expect lower figures on others. {reads}"
            "The figures of a label with few rows in the table above are uncertain."
        )


def command_line() -> str:
    """Return the command that runs now, as one would type it from the current folder."""
    script = os.path.relpath(sys.argv[0])
    return shlex.join(["accelerate", "launch", script, *sys.argv[1:]])


def write_model_card(
    folder: Path,
    *,
    title: str,
    base_model: str | None,
    description: str,
    data: str,
    metrics: Mapping[str, float],
    report: str,
    usage: str | None,
    limits: str,
    label_names: Sequence[str] = (),
    task: str = "text-classification",
    library: str = "transformers",
) -> None:
    """Write ``README.md`` with the hub's metadata block.

    Parameters
    ----------
    folder : Path
        The model's folder.
    title, description, usage, limits : str
        Markdown; without a model to use there is no usage.
    base_model : str, optional
        What was fine-tuned; goes into the metadata if it is a hub id.
    data : str
        Plain-text description of the data, shown verbatim.
    metrics : mapping of str to float
        Figures of the test set, by name; they become the card's table and its metadata.
    report : str
        The per-label report, shown verbatim.
    label_names : sequence of str
        Empty for a model that is no classifier.
    task : str
        The hub's name of what the model does.
    library : str
        The hub's name of what loads the model.
    """
    from huggingface_hub import EvalResult, ModelCardData

    metadata = ModelCardData(
        base_model=base_model and _hub_id(base_model),
        library_name=library if base_model else None,
        pipeline_tag=task if base_model else None,
        tags=[task],
        model_name=title,
        eval_results=[
            EvalResult(
                task_type=task,
                dataset_type="text",
                dataset_name="test split",
                metric_type=name,
                metric_value=round(value, 4),
            )
            for name, value in metrics.items()
        ],
    )
    rows = "\n".join(
        f"| {name.replace('_', ' ')} | {value:.3f} |" for name, value in metrics.items()
    )
    paragraph = "\n\n"
    labels = ", ".join(f"`{name}`" for name in label_names)
    table = f"| test | |\n|---|---|\n{rows}{paragraph}" if rows else ""
    card = f"""---
{metadata.to_yaml()}
---

# {title}

{description}

{f"Labels: {labels}.{paragraph}" if labels else ""}## Figures

{table}```
{report}
```

## Data

```
{data}
```

{f"## Use{paragraph}{usage}{paragraph}" if usage else ""}## Limits

{limits}

## Made by

```bash
{command_line()}
```

on {machine()}, Python {platform.python_version()}.
"""
    with atomic_write(folder / "README.md") as file:
        file.write(card)


def _hub_id(model: str) -> str | None:
    """Return what the hub knows the model by; a folder has no such name."""
    if model == DEFAULT_MODEL:
        return DEFAULT_MODEL_ON_HUB
    return None if Path(model).is_dir() else model
