"""Model cards: ``README.md`` with the model, its data, its metrics and the command that made it.

`write_model_card` writes any card. `TaggerCard` writes the card of a text classifier.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import os
import platform
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli.files import atomic_write, expand_path
from shared.cli.launch import machine
from shared.models.sources import DEFAULT_MODEL, DEFAULT_MODEL_ON_HUB
from shared.reports.verdict import verdict

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from shared.data.corpus import Corpus
    from shared.data.splits import Split

MAX_LABELS = 50  # that a card lists
SEE_PAGE = "[report.html](report.html) shows thresholds, confused labels and errors."

# The metrics of a run that the card of a tagger shows, in this order. If each text has one label,
# micro F1 is called accuracy.
CARD_METRICS = (
    "test_micro_f1",
    "test_micro_f1_low",
    "test_micro_f1_high",
    "test_macro_f1",
    "test_macro_f1_low",
    "test_macro_f1_high",
    "test_average_precision",
    "test_ece",
    "test_brier",
    "baseline_micro_f1",
    "baseline_macro_f1",
)


# The flags of the Trainer that a card shows, beside those of the recipe itself.
TRAINING_SETTINGS = (
    *("learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size"),
    *("gradient_accumulation_steps", "optim", "weight_decay", "lr_scheduler_type", "warmup_steps"),
    *("label_smoothing_factor", "max_grad_norm", "bf16"),
)

# They change no weight, or only which checkpoint is taken.
_HIDDEN_SETTINGS = (
    *("output_dir", "health_check", "per_device_eval", "eval_", "save_", "logging_", "load_best"),
    *("restore_", "ddp_"),
)
_OTHER_FLAGS = ("transformers", "shared.data", "builtins")

_ADAPTER_CARD = """---
library_name: peft
pipeline_tag: text-classification
---

# {name}

An adapter of the model in `{base}`. In the folder of the project, also after both were moved
together:

```python
from shared.taggers import load_tagger

tagger = load_tagger("{folder}")
```

Without the project, name the place of the model. `adapter_config.json` has the one of the training.

```python
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

# The Python file in the folder, which this runs, is the architecture of the model.
base = AutoModelForSequenceClassification.from_pretrained("{base}", trust_remote_code=True)
model = PeftModel.from_pretrained(base, "{folder}")
```
"""


@dataclass(frozen=True)
class TaggerCard:
    """The model card of a text classifier ("tagger").

    The attributes describe the model. `write` adds the data and the metrics of a run.

    Attributes
    ----------
    args : dataclass
        The flags of the recipe: settings, licence and language are shown.
    base_model : str, optional
        The model that was fine-tuned. Without it, and without `own_architecture`, the folder holds
        no model that transformers could load.
    own_architecture : bool
        Whether the model is of an architecture of this project. transformers then needs the code of
        the model, which lies in its folder.
    max_length : int, optional
        The number of tokens of a text that the model reads. None: all tokens.
    truncation_side : {"right", "left"}
        Where a longer text loses tokens: at its end, or at its start.
    evaluation : str, optional
        What the figures were measured on, if it is not the classifier in the folder.
    note : str, optional
        What else one should know of the training, such as that a part of it has failed.
    limits : str, optional
        Replaces the standard text of the section "Limits".
    """

    args: Any
    base_model: str | None = None
    own_architecture: bool = False
    max_length: int | None = None
    truncation_side: str = "right"
    evaluation: str | None = None
    note: str | None = None
    limits: str | None = None

    @classmethod
    def of_encoder(
        cls,
        args: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        evaluation: str | None = None,
        note: str | None = None,
    ) -> TaggerCard:
        """Return the card of an encoder that was fine-tuned.

        Parameters
        ----------
        args : EncoderArguments
            Of the recipe.
        tokenizer : PreTrainedTokenizerBase
            That of the encoder.
        evaluation, note
            As the attributes.
        """
        return cls(
            args,
            base_model=args.model,
            max_length=args.max_length,
            truncation_side=tokenizer.truncation_side,
            evaluation=evaluation,
            note=note,
        )

    def write(
        self,
        folder: Path,
        split: Split,
        metrics: Mapping[str, Any],
        report: str,
    ) -> None:
        """Write ``README.md``.

        Parameters
        ----------
        folder : Path
            The model's folder.
        split : Split
            The data that the model was trained and tested on.
        metrics : mapping
            The metrics of the run. Those in `CARD_METRICS` are shown, and the verdict on them.
        report : str
            The per-label report, shown unchanged.
        """
        corpus = split.corpus
        unknown_labels = split.sources["test"][0].describe_unknown_labels()
        divided = split.method.explain()
        if not split.tests_its_training_rows:
            divided = f"{split.describe()}\n{divided}"
        shown: Sequence[str] = CARD_METRICS
        if "test_accuracy" in metrics:
            shown = [name.replace("micro_f1", "accuracy") for name in shown]
        sentences = [f"- {sentence}" for sentence in verdict(metrics)]
        write_model_card(
            folder,
            title=self.title(corpus),
            base_model=self.base_model,
            description=_task(corpus),
            data="\n".join(filter(None, [corpus.describe(), unknown_labels, divided])),
            label_names=_most_frequent_first(corpus),
            metrics={name: metrics[name] for name in shown if name in metrics},
            verdict="\n".join(sentences) or None,
            report=report,
            evaluation="\n\n".join(filter(None, [self.evaluation, self.note, SEE_PAGE])),
            usage=self._usage(folder),
            settings=self._settings(),
            license=self._license(),
            language=getattr(self.args, "language", None),
            dataset=_hub_dataset(self.args.data),
            limits=self.limits or self._limits(len(split.labels["train"])),
        )

    def title(self, corpus: Corpus) -> str:
        """Return the title of the card: the name of the data."""
        path = Path(corpus.report["source"])
        name = path.parent.name if any(c in path.name for c in "*?[") else path.name.split(".")[0]
        return f"{name} tagger"

    def _usage(self, folder: Path) -> str:
        """Return how to load the tagger and read its output."""
        usage = f"""In the folder of the project, or of a copy of a recipe (`./run.sh copy`):

```python
from shared.taggers import load_tagger

tagger = load_tagger("{folder}")
tagger("Tokenizer drops the last word of every line")  # {{"labels": [...], "scores": {{...}}}}
```

`labels` follow by the rule in `tagger.json` from the scores before calibration; `scores` are
probabilities, calibrated on held-out texts if there were any."""
        if not (self.base_model or self.own_architecture):
            return usage
        option, note = "", ""
        if self.own_architecture:
            option = ", trust_remote_code=True"
            note = (
                "\n\n`trust_remote_code=True` lets transformers run the Python file in this "
                "folder, the architecture of the model. `load_tagger` does not run it."
            )
        return f"""{usage}

The transformers library reads the model without the project; its scores are those before
calibration, and `config.json` has the thresholds for them:

```python
from transformers import pipeline

classify = pipeline("text-classification", model="{folder}", top_k=None{option})
classify("Tokenizer drops the last word of every line", truncation=True)
```{note}"""

    def _settings(self) -> dict[str, Any]:
        """Return the flags of the method, by name, and those of the Trainer if it has trained."""
        # Flags about data and the hub are not about the method; transformers declares a hundred.
        own = (c for c in type(self.args).__mro__ if not c.__module__.startswith(_OTHER_FLAGS))
        names = [name for arguments in own for name in inspect.get_annotations(arguments)]
        if self.base_model or self.own_architecture:
            names += TRAINING_SETTINGS
        values = {name: getattr(self.args, name) for name in (*names, "seed")}
        return {
            name: getattr(value, "value", value)  # some are enumerations
            for name, value in values.items()
            if value not in (None, [], "") and not name.startswith(_HIDDEN_SETTINGS)
        }

    def _license(self) -> str | None:
        is_default = self.base_model == DEFAULT_MODEL
        return getattr(self.args, "license", None) or ("apache-2.0" if is_default else None)

    def _limits(self, n_train: int) -> str:
        """Return the standard text of the section "Limits"."""
        # After a last fit on more rows, `evaluation` gives their number.
        number = "" if self.evaluation else f"{n_train:,} "
        sentences = [
            f"The model was trained on {number}texts from one source.",
            "Expect lower scores on texts from other sources.",
        ]
        if self.max_length:
            part = "last" if self.truncation_side == "left" else "first"
            sentences.append(f"The model reads only the {part} {self.max_length} tokens of a text.")
        sentences.append("The metrics of labels with few rows in the table above are uncertain.")
        return " ".join(sentences)


def _task(corpus: Corpus) -> str:
    """Return what a tagger predicts."""
    names = corpus.label_names
    if len(names) == 1:
        return f"Predicts whether a text has the label `{names[0]}`, with a score from 0 to 1."
    if corpus.single_label:
        return (
            f"Predicts exactly one of {len(names):,} labels for a text, with a score from 0 to 1 "
            "for each label."
        )
    return (
        f"Predicts which of {len(names):,} labels a text has: none, one or several. Each label has "
        "a score from 0 to 1."
    )


def _most_frequent_first(corpus: Corpus) -> list[str]:
    """Return the labels: in their order, or, if a card cannot list all, the most frequent first."""
    names, counts = corpus.label_names, corpus.report["labels"]
    return names if len(names) <= MAX_LABELS else sorted(names, key=lambda name: -counts[name])


def command_line() -> str:
    """Return the command of this run, ready to be pasted into a shell in the current folder.

    It is published with the card, so that the value of ``--hub_token`` is left out. A run that was
    stopped and resumed has the results of one that was not, and so the command of that one.
    """
    script = os.path.relpath(sys.argv[0])
    command = shlex.join(["accelerate", "launch", script, *sys.argv[1:]])
    command = re.sub(r" --resume[_-]from[_-]checkpoint[= ]('[^']*'|\S+)", "", command)
    return re.sub(r"(--hub[_-]token[= ])\S+", r"\1TOKEN", command)


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
    evaluation: str | None = None,
    verdict: str | None = None,
    label_names: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    license: str | None = None,
    language: str | None = None,
    dataset: str | None = None,
    task: str = "text-classification",
    data_type: str = "text",
    library: str = "transformers",
) -> None:
    """Write ``README.md`` with the metadata block of the Hugging Face Hub.

    Parameters
    ----------
    folder : Path
        The model's folder.
    title, description, limits : str
        Markdown.
    usage : str, optional
        Markdown. None if there is no model to use: the section "Use" is then left out.
    base_model : str, optional
        The model that was fine-tuned. It goes into the metadata if it is a hub id.
    data : str
        Plain-text description of the data, shown unchanged.
    metrics : mapping of str to float
        Metrics of the test set, by name. They go into the card's table and into its metadata.
    report : str
        The per-label report, shown unchanged.
    evaluation : str, optional
        Markdown: what the metrics were measured on.
    verdict : str, optional
        Markdown: what the metrics mean.
    label_names : sequence of str
        Empty if the model is no classifier. The first 50 are listed.
    settings : mapping, optional
        Hyper-parameters, by name.
    license, language, dataset : str, optional
        As the hub spells them; for the metadata.
    task : str, default "text-classification"
        The hub's name of the task.
    data_type : str, default "text"
        What the data are, for the metadata.
    library : str, default "transformers"
        The hub's name of the library that loads the model.
    """
    from huggingface_hub import EvalResult, ModelCardData

    metadata = ModelCardData(
        base_model=base_model and _hub_id(base_model),
        license=license,
        language=language,
        datasets=dataset and [dataset],
        library_name=library if base_model else None,
        pipeline_tag=task if base_model else None,
        tags=[task],
        model_name=title,
        eval_results=[
            EvalResult(
                task_type=task,
                dataset_type=data_type,
                dataset_name="test split",
                metric_type=name,
                metric_value=round(value, 4),
            )
            for name, value in metrics.items()
        ],
    )
    labels = ", ".join(f"`{name}`" for name in label_names[:MAX_LABELS])
    if len(label_names) > MAX_LABELS:
        labels += f" and {len(label_names) - MAX_LABELS:,} rarer ones (`per_label.csv` has all)"
    blocks = [
        f"---\n{metadata.to_yaml()}\n---",
        f"# {title}",
        description,
        f"Labels: {labels}." if labels else None,
        "## Results",
        evaluation,
        _metrics_table(metrics) if metrics else None,
        verdict,
        f"```\n{report.rstrip()}\n```",
        "## Data",
        f"```\n{data}\n```",
        f"## Use\n\n{usage}" if usage else None,
        "## Limits",
        limits,
        f"## Settings\n\n{_settings_table(settings)}" if settings else None,
        "## Command",
        f"```bash\n{command_line()}\n```",
        f"It ran on {machine()}, {_versions()}.",
    ]
    with atomic_write(folder / "README.md") as file:
        file.write("\n\n".join(block for block in blocks if block is not None) + "\n")


def _settings_table(settings: Mapping[str, Any]) -> str:
    rows = (f"| {name} | `{value}` |" for name, value in settings.items())
    return "\n".join(["| setting | value |", "|---|---|", *rows])


def _versions() -> str:
    """Return the versions of Python and of the libraries that decide about results."""
    names = ("torch", "transformers", "datasets", "tokenizers", "scikit-learn")
    libraries = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return f"Python {platform.python_version()}, {libraries}"


def _hub_dataset(data: str) -> str | None:
    """Return the id of a data set on the hub; None for files and for the sample."""
    is_file = data == "sample" or expand_path(data).exists()
    return None if is_file or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", data) else data


def _metrics_table(metrics: Mapping[str, float]) -> str:
    """Return Markdown: a row per metric, with its interval if ``*_low`` and ``*_high`` exist."""
    lines = ["| metric | value | 95 % interval |", "|---|---|---|"]
    for name, value in metrics.items():
        if name.endswith(("_low", "_high")) and name.rpartition("_")[0] in metrics:
            continue
        interval = ""
        if f"{name}_low" in metrics:
            interval = f"{metrics[f'{name}_low']:.3f} to {metrics[f'{name}_high']:.3f}"
        shown = name.replace("_", " ").replace("f1", "F1").replace("baseline", "naive Bayes,")
        lines.append(f"| {shown} | {value:.3f} | {interval} |")
    return "\n".join(lines)


def _hub_id(model: str) -> str | None:
    """Return the name of a model on the hub; None for a folder, which has no such name."""
    if model == DEFAULT_MODEL:
        return DEFAULT_MODEL_ON_HUB
    return None if Path(model).is_dir() else model


def write_adapter_card(folder: Path, name: str, *, base: Path) -> None:
    """Write ``README.md`` of an adapter of the model in `base`; that of peft is an empty form."""
    with atomic_write(folder / "README.md") as file:
        file.write(_ADAPTER_CARD.format(name=name, base=base, folder=folder))
