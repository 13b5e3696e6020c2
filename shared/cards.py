"""A model card: what the model is, what it was measured on, and the command that made it."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from shared.files import atomic_write
from shared.hardware import machine
from shared.models import DEFAULT_MODEL, DEFAULT_MODEL_ON_HUB


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
