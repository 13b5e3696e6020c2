"""`Tagger`: from texts to labels and scores, whatever the method; `load_tagger` reads a folder."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from shared.cli.errors import UserError
from shared.cli.launch import print_once, quiet_libraries
from shared.evaluation.calibration import Calibration
from shared.evaluation.rules import DecisionRule, prediction_records
from shared.methods.attributions import Chosen, Contributions, mean_contributions
from shared.taggers.folder import MANIFEST, TaggerContents, is_tagger, read_tagger, write_tagger

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase, TrainingArguments

    from shared.training.trainer import LengthGroupedTrainer

BLOCK_SIZE = 4096  # texts that are sorted by length and scored at a time
LABELS_SHOWN = 20  # in a table that is printed
MEAN = "mean"  # the method of a tagger that averages others
_SINGLE_LABEL, _MULTI_LABEL = "single_label_classification", "multi_label_classification"
# The module and the class of each method. A module is imported only for a tagger that needs it: one
# of words needs no torch. A copied recipe holds the modules of its own methods only.
_SCORERS = {
    "trained_model": ("trained_model", "TrainedModelScorer"),
    "words": ("words", "WordScorer"),
    "embeddings": ("embeddings", "EmbeddingScorer"),
    "onnx": ("onnx_model", "OnnxScorer"),
    "zero_shot": ("zero_shot", "ZeroShotScorer"),
}


# --- scorers -------------------------------------------------------------------------------------


class Scorer(Protocol):
    """From texts to scores."""

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return scores from 0 to 1: float64, of shape (texts, labels)."""

    def save(self, folder: Path, contents: TaggerContents) -> None:
        """Add to the contents of a tagger folder what `load_scorer` needs."""


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
        from shared.training.collators import PaddingCollator
        from shared.training.trainer import LengthGroupedTrainer

        args = copy.copy(self.args or _prediction_arguments())
        # The arguments may be those of a training.
        args.eval_strategy, args.load_best_model_at_end = "no", False
        args.bf16, args.report_to, args.push_to_hub = False, [], False
        args.label_smoothing_factor = 0.0
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


# --- tagger --------------------------------------------------------------------------------------


@dataclass
class Tagger:
    """Gives texts labels and scores.

    Attributes
    ----------
    label_names : list of str
        The labels, in the order of the columns of `scores`.
    rule : DecisionRule
        Which labels a text gets.
    scorer : callable
        Maps texts to an array of shape (texts, labels); see `Scorer`.
    calibration : Calibration, optional
        Makes probabilities of the scores. The rule reads them before calibration, so that it
        changes no label.
    unsure_below : float, optional
        Only with a calibration: records also have ``confidence``, the probability that all labels
        of the text are right, and ``unsure``: whether it is below this number.
    """

    label_names: list[str]
    rule: DecisionRule
    scorer: Scorer
    calibration: Calibration | None = None
    unsure_below: float | None = None

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Return a score from 0 to 1 for each text and label: float64, (texts, labels)."""
        return self.calibrate(self.raw_scores(texts))

    def calibrate(self, raw_scores: np.ndarray) -> np.ndarray:
        """Return what `scores` returns, from the scores before calibration."""
        return raw_scores if self.calibration is None else self.calibration(raw_scores)

    def choose(self, raw_scores: np.ndarray) -> np.ndarray:
        """Return the labels of scores before calibration: bool, (texts, labels)."""
        reads_calibrated = self.rule.reads_calibrated
        return self.rule.choose(self.calibrate(raw_scores) if reads_calibrated else raw_scores)

    @property
    def calibrated_rule(self) -> DecisionRule:
        """The rule with thresholds for the scores after calibration."""
        if self.calibration is None or self.rule.reads_calibrated or not self.rule.thresholds:
            return self.rule
        thresholds = tuple(self.calibration.thresholds(self.rule.thresholds).tolist())
        return replace(self.rule, thresholds=thresholds)

    def raw_scores(self, texts: Sequence[str]) -> np.ndarray:
        """Return the scores before calibration: float64, (texts, labels)."""
        parts = [np.zeros((0, len(self.label_names)))]  # so that no texts give no rows
        for start in range(0, len(texts), BLOCK_SIZE):
            parts.append(self.scorer(texts[start : start + BLOCK_SIZE]))
        return np.concatenate(parts)

    def tag(
        self, texts: Sequence[str | None] | np.ndarray, n_scores: int | None = None
    ) -> list[dict[str, Any]]:
        """Return ``{"labels": [...], "scores": {...}}`` for each text, both best first.

        A text that is None or blank gets no labels and no scores. With `n_scores`, only the best
        labels and the predicted ones have a score. With `unsure_below`, records also have
        ``confidence`` and ``unsure``, None and true for a blank text.

        Raises
        ------
        TypeError
            If a text is neither a string nor None; the message has its number.
        """
        for number, text in enumerate(texts):
            if text is not None and not isinstance(text, str):
                raise TypeError(f"text {number} is {text!r}, neither a string nor None")
        to_score = [text for text in texts if text and text.strip()]
        raw_scores = self.raw_scores(to_score)
        scores, chosen = self.calibrate(raw_scores), self.choose(raw_scores)
        records = prediction_records(scores, chosen, self.label_names, n_scores)
        blank: dict[str, Any] = {"labels": [], "scores": {}}
        if self.unsure_below is not None and self.calibration is not None:
            confidences = self.calibration.confidence(raw_scores, chosen).round(6).tolist()
            extra = [{"confidence": c, "unsure": c < self.unsure_below} for c in confidences]
            records = (record | more for record, more in zip(records, extra, strict=True))
            blank |= {"confidence": None, "unsure": True}
        return [next(records) if text and text.strip() else dict(blank) for text in texts]

    def __call__(self, texts: Any, column: str = "text") -> Any:
        """Tag a text, or many.

        Parameters
        ----------
        texts : str, sequence of str, iterable of str, or datasets.Dataset
        column : str
            The column of a data set that holds the texts.

        Returns
        -------
        dict, list of dict, iterator of dict, or Dataset
            As the texts: one record with ``labels`` and ``scores``; a list of them; an iterator,
            which reads the texts in blocks; or the data set with a column for each part of a
            record, which replaces a column of its name.
        """
        if isinstance(texts, str):
            return self.tag([texts])[0]
        if hasattr(texts, "column_names"):
            return self._tag_dataset(texts, column)
        if isinstance(texts, (Sequence, np.ndarray)):
            return self.tag(texts)
        return self._tag_blocks(iter(texts))

    def _tag_blocks(self, texts: Iterator[str]) -> Iterator[dict[str, Any]]:
        while block := list(islice(texts, BLOCK_SIZE)):
            yield from self.tag(block)

    def _tag_dataset(self, dataset: Dataset, column: str) -> Dataset:
        if column not in dataset.column_names:
            raise ValueError(f"no column {column!r} (there are {', '.join(dataset.column_names)})")
        records = self.tag(dataset[column][:])
        # A row without text has no scores: each label has null.
        blank = dict.fromkeys(self.label_names)
        columns = {
            "labels": [record["labels"] for record in records],
            "scores": [blank | record["scores"] for record in records],
        }
        if self.unsure_below is not None and self.calibration is not None:
            for name in ("confidence", "unsure"):
                columns[name] = [record[name] for record in records]
        tagged = dataset.select_columns([n for n in dataset.column_names if n not in columns])
        for name, values in columns.items():
            tagged = tagged.add_column(name, values)
        return tagged

    def save(self, folder: str | Path) -> None:
        """Write the tagger into a folder; the files of a trained model must be there already."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        contents = TaggerContents("", self.label_names, self.rule, self.calibration)
        self.scorer.save(path, contents)
        write_tagger(path, contents)


# --- several taggers -----------------------------------------------------------------------------


@dataclass
class MeanScorer:
    """The mean score of several taggers, also of different methods.

    Attributes
    ----------
    members : list of Tagger
    folders : list of str
        Their folders below that of the mean, for `save`; empty: tagger_0, tagger_1, ...
    weights : list of float, optional
        Of the members; None: all the same.
    """

    members: list[Tagger]
    folders: list[str] = field(default_factory=list)
    weights: list[float] | None = None

    def __post_init__(self):
        # The columns of each member, in the order of the labels of the first one.
        names = self.members[0].label_names
        self._columns = [[m.label_names.index(name) for name in names] for m in self.members]

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return the weighted mean of the scores."""
        pairs = zip(self.members, self._columns, strict=True)
        scores = [member.calibrate(member.scorer(texts))[:, columns] for member, columns in pairs]
        return np.average(scores, axis=0, weights=self.weights)

    def contributions(self, texts: Sequence[str], chosen: Chosen) -> Contributions:
        """Return the weighted mean of what words add to the logits of chosen labels.

        Raises
        ------
        ValueError
            If a member cannot say it.
        """
        parts = []
        for member, columns in zip(self.members, self._columns, strict=True):
            if not hasattr(member.scorer, "contributions"):
                raise ValueError("a tagger of the mean cannot say what its words add")
            of_member = [[columns[label] for label in labels] for labels in chosen]
            parts.append(member.scorer.contributions(texts, of_member))
        return mean_contributions(parts, self.weights)

    def save(self, folder: Path, contents: TaggerContents) -> None:
        """Save each member in its folder, and record the folders."""
        folders = self.folders or [f"tagger_{number}" for number in range(len(self.members))]
        for member, name in zip(self.members, folders, strict=True):
            member.save(folder / name)
        contents.method = MEAN
        contents.settings |= {"members": folders, "weights": self.weights}
        contents.files = [f"{name}/{MANIFEST}" for name in folders]


def save_mean(
    folder: Path,
    members: Sequence[str],
    label_names: Sequence[str],
    rule: DecisionRule,
    calibration: Calibration | None = None,
) -> None:
    """Make a tagger of the mean of taggers that are saved already, in folders below `folder`."""
    files = [f"{name}/{MANIFEST}" for name in members]
    settings = {"members": list(members)}
    write_tagger(
        folder, TaggerContents(MEAN, list(label_names), rule, calibration, settings, files=files)
    )


def mean_tagger(
    members: Sequence[Tagger], *, folders: Sequence[str] = (), names: Sequence[str] = ()
) -> Tagger:
    """Return a tagger with the mean scores and the mean thresholds of several taggers.

    Parameters
    ----------
    members : sequence of Tagger
        With the same labels, in any order. One alone is returned as it is.
    folders : sequence of str
        The folder of each member below that of the mean, for `save`.
    names : sequence of str
        What errors call the members.

    Raises
    ------
    UserError
        If the members have other labels, or rules that do not fit together.
    """
    first = members[0]
    if len(members) == 1:
        return first
    names = names or [f"tagger {number}" for number in range(len(members))]
    for member, name in zip(members, names, strict=True):
        if different := set(first.label_names) ^ set(member.label_names):
            raise UserError(
                f"{name} has other labels than {names[0]}: only one of them has "
                f"{', '.join(sorted(different)[:5])}"
            )
    scorer = MeanScorer(list(members), list(folders))
    # Thresholds follow the order of the labels, too.
    rules = []
    for member in members:
        order = [member.label_names.index(name) for name in first.label_names]
        of_labels = member.calibrated_rule.thresholds
        thresholds = tuple(of_labels[i] for i in order if of_labels)
        rules.append(DecisionRule(thresholds, member.rule.at_least_one, member.rule.top_k))
    return Tagger(first.label_names, DecisionRule.mean(rules), scorer)


# --- loading -------------------------------------------------------------------------------------


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
