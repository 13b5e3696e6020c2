"""`load_tagger` reads the folder of a tagger; how it is loaded and which method it has."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.errors import UserError
from shared.cli.launch import print_once, quiet_libraries
from shared.evaluation.rules import DecisionRule
from shared.taggers.folder import MANIFEST, TaggerContents, is_tagger, read_tagger
from shared.taggers.means import MEAN, MeanScorer
from shared.taggers.tagger import Scorer, Tagger

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase, TrainingArguments

    from shared.training.trainer import LengthGroupedTrainer

LABELS_SHOWN = 20  # in a table that is printed
_SINGLE_LABEL, _MULTI_LABEL = "single_label_classification", "multi_label_classification"
# The module and the class of each method. A module is imported only for a tagger that needs it: one
# of words needs no torch. A copied recipe holds the modules of its own methods only.
_SCORERS = {
    "trained_model": ("trained_model", "TrainedModelScorer"),
    "words": ("words", "WordScorer"),
    "embeddings": ("embeddings", "EmbeddingScorer"),
    "onnx": ("onnx_model", "OnnxScorer"),
    "zero_shot": ("zero_shot", "ZeroShotScorer"),
    "language_model": ("language_model", "LanguageModelScorer"),
}


@dataclass(frozen=True)
class Loading:
    """How a tagger is loaded.

    Attributes
    ----------
    args : TrainingArguments, optional
        Of the Trainer that predicts: device and batch size. None: 32 texts per batch, and a GPU if
        there is one.
    bf16 : bool
        Whether it predicts in bfloat16.
    encoder : str, optional
        The new place of an encoder that was moved.
    cache_dir : Path, optional
        Folder that keeps embeddings for later runs.
    """

    args: TrainingArguments | None = None
    bf16: bool = False
    encoder: str | None = None
    cache_dir: Path | None = None

    @property
    def block_size(self) -> int:
        """Rows that a zero-shot method scores at a time: ``block_size`` of `args`, or 10,000."""
        return getattr(self.args, "block_size", 10_000)

    def trainer(self, model: Any, tokenizer: PreTrainedTokenizerBase) -> LengthGroupedTrainer:
        """Return a Trainer that predicts, and prints nothing."""
        from accelerate.state import is_initialized

        from shared.training.collators import PaddingCollator
        from shared.training.trainer import LengthGroupedTrainer

        args = copy.copy(self.args or _prediction_arguments())
        # The arguments may be those of a training.
        args.eval_strategy, args.load_best_model_at_end = "no", False
        args.bf16, args.report_to, args.push_to_hub = False, [], False
        args.label_smoothing_factor = 0.0
        # If the process has a precision already, another one is an error; predictions do not depend
        # on it. Else it stays that of a training that may follow.
        if is_initialized():
            args.mixed_precision = None
        args.dataloader_pin_memory = args.device.type != "cpu"
        collator = PaddingCollator(tokenizer)
        return LengthGroupedTrainer(
            model=model, args=args, data_collator=collator, bf16_predictions=self.bf16
        )


@cache  # new arguments would reset the state of accelerate, which all Trainers share
def _prediction_arguments() -> TrainingArguments:
    from transformers import TrainingArguments

    # The Trainer creates its output folder, so this names one that exists.
    folder = tempfile.gettempdir()
    return TrainingArguments(folder, per_device_eval_batch_size=32, disable_tqdm=True)


def load_scorer(folder: Path, contents: TaggerContents, loading: Loading) -> Scorer:
    """Load the scorer of the method that a tagger folder names.

    Raises
    ------
    UserError
        If there is no such method, or its encoder is missing or is another one.
    """
    try:
        module, name = _SCORERS[contents.method]
        scorer = getattr(import_module(f"shared.taggers.{module}"), name)
    except (KeyError, ModuleNotFoundError) as error:
        if not (getattr(error, "name", None) or "shared.").startswith("shared."):
            raise  # a missing library
        raise UserError(
            f"{folder}: this project has no method {contents.method!r}, the one of the tagger"
        ) from None
    if loading.args is None and contents.method != "words":  # which needs none of them
        quiet_libraries()
    return scorer.load(folder, contents, loading)


def load_tagger(
    folder: str | Path,
    args: TrainingArguments | None = None,
    *,
    bf16: bool = False,
    encoder: str | None = None,
    threshold: float | None = None,
    cache_dir: Path | None = None,
) -> Tagger:
    """Load a tagger that a recipe saved, of any method.

    Parameters
    ----------
    folder : str or Path
        Also the folder of a text classifier of transformers that names its labels, and decision
        thresholds if a text can have several.
    args : TrainingArguments, optional
        Of the Trainer that predicts: device and batch size. None: 32 texts per batch, and a GPU if
        there is one.
    bf16 : bool
        Compute in bfloat16: faster on hardware that supports it, scores change by about .01.
    encoder : str, optional
        The folder or hub id of the tagger's encoder, if it was moved.
    threshold : float, optional
        One decision threshold for all labels, instead of the saved rule. It is compared with the
        scores after calibration, those that the tagger returns.
    cache_dir : Path, optional
        Folder that keeps sentence embeddings, so that the same texts are embedded only once.

    Raises
    ------
    UserError
        If the folder is no tagger, was written by another version, has changed or damaged files,
        or if its encoder is missing or is not the one of the fit.
    """
    path = Path(folder).expanduser()
    loading = Loading(args, bf16, encoder, cache_dir)
    if not is_tagger(path):
        return _load_transformers_model(str(folder), loading, threshold)
    contents = read_tagger(path)
    try:
        if contents.method == MEAN:
            options: dict[str, Any] = {"bf16": bf16, "encoder": encoder, "cache_dir": cache_dir}
            scorer: Scorer = _load_members(path, contents, args, **options)
        else:
            scorer = load_scorer(path, contents, loading)
        # Arrays of other shapes than the labels or the words would fail here.
        scores = scorer(["a text"])
        if scores.shape != (1, len(contents.label_names)):
            raise ValueError("scores of another number of labels")
        # A mean can be above 1 by a rounding error. NaN is not below any number.
        if not (np.abs(scores - 0.5) < 0.5 + 1e-6).all():
            raise ValueError("scores that are not from 0 to 1")
    except (LookupError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise UserError(f"{folder}: damaged ({error!r}); train the tagger again") from error
    tagger = Tagger(contents.label_names, contents.rule, scorer, contents.calibration)
    if threshold is not None:
        tagger.rule = DecisionRule.of(threshold, len(contents.label_names), reads_calibrated=True)
    return tagger


def load_taggers(args: Any, default: str) -> list[Tagger]:
    """Load the taggers of ``--model``.

    Parameters
    ----------
    args : shared.taggers.arguments.TaggerArguments
        With the folders in `model`.
    default : str
        The folder that `model` names if the user does not.

    Raises
    ------
    UserError
        As `load_tagger`, or if there is no default tagger.
    """
    if args.model == [default] and not Path(default).is_dir():
        raise UserError(
            f"--model {default}: no such folder; train a tagger with a recipe, or name the folder "
            "of another"
        )
    options = {"bf16": args.bf16, "encoder": args.encoder, "threshold": args.threshold}
    taggers = [load_tagger(name, args, **options) for name in args.model]
    wanted = [name for name in ("target_precision", "abstain") if getattr(args, name) is not None]
    for name in wanted:
        if len(taggers) > 1:
            raise UserError(f"--{name}: takes one tagger, since a mean has no held-out texts")
        if taggers[0].calibration is None:
            raise UserError(
                f"--{name}: {args.model[0]} has no figures of held-out texts; train it again, with "
                "a validation set or a cross-validation"
            )
    if args.target_precision is not None:
        taggers = [_aim_at_precision(taggers[0], args.target_precision)]
    return [replace(tagger, unsure_below=args.abstain) for tagger in taggers]


def _aim_at_precision(tagger: Tagger, target: float) -> Tagger:
    """Return a tagger whose rule reaches a precision; print the recall that this costs."""
    calibration = tagger.calibration
    assert calibration is not None
    tagger = replace(tagger, rule=calibration.rule_of_precision(target))
    recall = calibration.recall_of_precision(target)
    lines = [f"Precision {target:g} on held-out texts, and what it costs"]
    thresholds = tagger.calibrated_rule.thresholds
    width = max(map(len, tagger.label_names))
    for label in np.argsort(-recall, kind="stable")[:LABELS_SHOWN].tolist():
        score = f"from a score of {thresholds[label]:.2f}, recall {recall[label]:.2f}"
        never = "never given: it does not reach this precision"
        shown = score if thresholds[label] <= 1 else never
        lines.append(f"  {tagger.label_names[label]:{width}}  {shown}")
    if len(recall) > LABELS_SHOWN:
        n_never = sum(threshold > 1 for threshold in thresholds)
        lines.append(f"  ... of all {len(recall):,} labels, {n_never:,} are never given")
    print_once("\n".join(lines))
    return tagger


def note_unknown_tokens(taggers: Mapping[str, Tagger], texts: Sequence[str]) -> None:
    """Name the taggers whose tokenizers do not know the script of texts.

    Parameters
    ----------
    taggers : mapping of str to Tagger
        By the names to print.
    texts : sequence of str
        Some hundreds tell.
    """
    from shared.models.tokenizers import UNKNOWN_LIMIT, tokenize_texts, unknown_token_share

    for name, tagger in taggers.items():
        scorer: Any = tagger.scorer
        while isinstance(scorer, MeanScorer):  # the first member stands for all
            scorer = scorer.members[0].scorer
        if tokenizer := getattr(scorer, "tokenizer", None):  # methods of words have none
            share = unknown_token_share(tokenize_texts(tokenizer, texts), tokenizer)
            if share > UNKNOWN_LIMIT:
                print_once(
                    f"note: {name}: {share:.0%} of the tokens of the texts are unknown; train a "
                    "tagger with an encoder that knows the script"
                )


def _load_members(path: Path, contents: TaggerContents, *args: Any, **options: Any) -> MeanScorer:
    """Load the taggers of a mean, which lie in folders below it."""
    folders = contents.settings["members"]
    for name in folders:
        # Only listed files are checked.
        if f"{name}/{MANIFEST}" not in contents.files:
            raise ValueError(f"member {name!r}")
    members = [load_tagger(path / name, *args, **options) for name in folders]
    if members[0].label_names != contents.label_names:
        raise ValueError("members with other labels")
    return MeanScorer(members, folders, contents.settings.get("weights"))


def _load_transformers_model(name: str, loading: Loading, threshold: float | None) -> Tagger:
    """Load a classifier that another program saved, with the rule of its config."""
    from shared.models.loading import load_config
    from shared.models.sources import resolve_model

    source = resolve_model(name)
    config = load_config(source)
    label_names = [config.id2label[i] for i in range(config.num_labels)]
    rule = _rule_of_config(source, config, threshold)
    contents = TaggerContents("trained_model", label_names, rule)
    return Tagger(label_names, rule, load_scorer(Path(source), contents, loading))


def _rule_of_config(folder: str, config: PreTrainedConfig, threshold: float | None) -> DecisionRule:
    """Return the decision rule of a model that has no ``tagger.json``."""
    n = config.num_labels
    # transformers makes these names up if there are none. A rule for as many labels says that they
    # are the real ones.
    saved = getattr(config, "thresholds", None)
    has_rule = isinstance(saved, list) and len(saved) == n
    has_rule = has_rule or getattr(config, "one_label_each", False)
    if config.id2label == {i: f"LABEL_{i}" for i in range(n)} and not has_rule:
        raise UserError(f"{folder}: the config names no labels; train a tagger with a recipe")
    if threshold is not None and config.problem_type in (_SINGLE_LABEL, _MULTI_LABEL):
        return DecisionRule.of(threshold, n)
    if config.problem_type == _SINGLE_LABEL or getattr(config, "one_label_each", False):
        return DecisionRule(top_k=1)
    if config.problem_type != _MULTI_LABEL:
        raise UserError(
            f"{folder}: its problem_type is {config.problem_type}, neither {_MULTI_LABEL} nor "
            f"{_SINGLE_LABEL}; its scores are not those of labels"
        )
    try:
        return DecisionRule.from_json({"thresholds": getattr(config, "thresholds", None)}, n)
    except ValueError as error:
        raise UserError(
            f"{folder}: the config has no threshold for each label ({error}); set one with "
            "--threshold"
        ) from error
