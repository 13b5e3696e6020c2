"""Export a tagger to ONNX: it then runs without torch, in 8-bit integers several times as fast.

Why: a program that only tags needs neither torch nor the Trainer. The encoder is exported by
torch.onnx and run by onnxruntime on the CPU; what is arrays already stays as it is: the classifier
of few_label_probe and embedding_lookup, taggers of words in a mean. The output is a tagger folder
as any other, for tag.py, serve.py and `load_tagger`.

    accelerate launch recipes/export.py --model outputs/github_tagger --data my_issues.jsonl
    accelerate launch recipes/export.py --model outputs/few_label_probe --precision float32
    accelerate launch recipes/export.py --model outputs/goemotions --data go.tsv --static

The tagger and its exports score the same labelled rows of --data, in rounds that take turns, each
in batches of texts of similar length. A table has the F1 and the texts per second of each:

- PyTorch in float32 and, where the processor has it, in bfloat16;
- ONNX in float32. Its probabilities must equal those of PyTorch to 1e-4 for every text, or the run
  ends with an error and leaves no tagger;
- ONNX in int8: weights and activations are 8-bit integers, scaled as the texts come (dynamic
  quantisation). A score changes by .01 on average, single ones by .2 or more, and depends a little
  on the texts beside it: look at F1;
- with --static, static embeddings: each token of the vocabulary passes the encoder of the tagger
  once, and the vector of a text is the mean of the vectors of its tokens (Model2Vec). On them, one
  logistic regression per label is fitted to the labelled rows that are not compared, which must be
  at least 100; a quarter of them tunes the threshold.

--precision auto saves int8 if its micro and its macro F1 are within .005 of float32, up or down,
else float32;
--static saves the static tagger. The compared rows are test rows if the folder of the tagger says
which these are (test_predictions.jsonl), else any labelled rows: the tagger may have learned from
them, and then only the differences between the lines of the table mean something.

Expect on two busy CPU cores, with the default encoder: an export takes half a minute, its file is
91 MB in float32 and 23 MB in int8. OMP_NUM_THREADS sets the threads, of torch and of onnxruntime.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Literal

import numpy as np
from transformers import TrainingArguments

from shared.cli import (
    UserError,
    exit_on_user_error,
    flag,
    has_fast_bf16,
    machine,
    parse_arguments,
    progress,
    start_recipe,
    temporary_folder,
    write_json,
)
from shared.data import DataArguments, append_unknown_labels, cache_folder, load_data
from shared.evaluation import DecisionRule, f1_scores, find_thresholds
from shared.methods import (
    CachedEmbedder,
    MeanPooling,
    StaticEncoder,
    distil,
    fit_strategy,
    logistic_probe,
)
from shared.taggers import (
    EmbeddingScorer,
    Tagger,
    drop_rare_labels,
    export_tagger,
    load_tagger,
    quantize_tagger,
)
from shared.training import LengthGroupedTrainer, PaddingCollator

DEFAULT_TAGGER = "outputs/github_tagger"
TOLERANCE = 1e-4  # of probabilities, between PyTorch and ONNX in float32
F1_TOLERANCE = 0.005  # between float32 and int8, with --precision auto
ROUNDS = 5  # in each, all taggers score a fifth of the rows
FEWEST_ROWS = 100  # to fit a static tagger to


@dataclass
class ExportArguments(DataArguments, TrainingArguments):
    """The flags of this recipe, and the Trainer defaults that it changes."""

    model: str = flag(DEFAULT_TAGGER, f"Tagger folder (default: {DEFAULT_TAGGER}).")
    encoder: str | None = flag(
        None, "New place of the encoder of the tagger, if it was moved (default: as saved)."
    )
    texts: int = flag(
        500, "Labelled rows of --data to compare on, drawn at random (default: 500).", least=1
    )
    precision: Literal["auto", "int8", "float32"] = flag(
        "auto",
        "What to save: int8, float32, or auto: int8 if its F1 is within .005 of float32 (default: "
        "auto).",
    )
    static: bool = flag(
        False, "Distil static embeddings from the encoder and save them (default: false)."
    )
    per_device_eval_batch_size: int = flag(32, "Texts per batch of PyTorch (default: 32).")
    output_dir: str = flag("outputs/export", "Output folder (default: outputs/export).")

    def __post_init__(self):
        self.use_cpu = True  # onnxruntime runs there, so PyTorch is measured there
        super().__post_init__()


def main() -> None:
    """Load, export, compare in rounds, save what was asked for."""
    args = parse_arguments(ExportArguments, description=__doc__)
    source, output_dir = Path(args.model).expanduser(), Path(args.output_dir)
    if source.resolve() == output_dir.resolve():
        raise UserError(f"--output_dir {output_dir}: is the tagger itself; choose another folder")
    if args.model == DEFAULT_TAGGER and not source.is_dir():
        raise UserError(
            f"--model {source}: no such folder; train a tagger with a recipe, or name the folder "
            "of another"
        )
    output_dir = start_recipe(args)

    # Load the tagger, and the labelled rows to compare on.
    torch_tagger = load_tagger(args.model, args, encoder=args.encoder)
    names = torch_tagger.label_names
    options = {"label_names": names, "keep_unknown_labels": True}
    corpus = load_data(drop_rare_labels(args, names), **options)
    test_rows = find_test_rows(source, corpus)
    rng = np.random.default_rng(args.seed)
    known = corpus.labelled if test_rows is None else test_rows
    rows = rng.permutation(known)[: args.texts]
    which = "labelled" if test_rows is None else "test"
    print(f"comparing on {len(rows):,} of {len(known):,} {which} rows of {args.data}")
    if test_rows is None:
        print("note: the tagger may have learned from these rows; compare the lines of the table")

    with temporary_folder(output_dir) as folder:
        # Fit the static tagger and export. Then let all taggers score the rows, part by part and
        # taking turns, so that other work on the machine slows all of them alike.
        taggers = {"PyTorch float32": torch_tagger}
        exported = export_tagger(torch_tagger, folder)
        if args.static:
            others = np.setdiff1d(corpus.labelled, rows)
            static = fit_static(torch_tagger, corpus, others, rng, source, args)
        if has_fast_bf16(on_cpu=True):
            options = {"encoder": args.encoder, "bf16": True}
            taggers["PyTorch bfloat16"] = load_tagger(args.model, args, **options)
        taggers["ONNX float32"] = exported
        taggers["ONNX int8"] = quantize_tagger(exported, folder)
        if args.static:
            taggers["static"] = export_tagger(static, folder)
        for tagger in taggers.values():
            tagger.scores(["The first call of a model is the slowest."])
        scores = {name: np.zeros((len(rows), len(names))) for name in taggers}
        seconds = dict.fromkeys(taggers, 0.0)
        parts = np.array_split(np.arange(len(rows)), min(ROUNDS, len(rows)))
        for part in progress(parts, "comparing", unit="rounds"):
            texts = corpus.dataset.select(rows[part])["text"][:]
            for name, tagger in taggers.items():
                started = perf_counter()
                scores[name][part] = tagger.raw_scores(texts)
                seconds[name] += perf_counter() - started
            difference = np.abs(scores["ONNX float32"] - scores["PyTorch float32"])[part].max()
            if not difference <= TOLERANCE:
                raise UserError(
                    f"{args.model}: the exported probabilities differ by {difference:.1e} from "
                    f"those of PyTorch, more than {TOLERANCE:.0e}; nothing was saved; tag with the "
                    "tagger as it is"
                )

        # Compare, and save one of them.
        y = corpus.label_matrix(rows)
        figures = {}
        for name, tagger in taggers.items():
            pair = append_unknown_labels(
                corpus.dataset.select(rows), y, tagger.choose(scores[name])
            )
            f1 = {key: f1_scores(*pair)[key] for key in ("micro_f1", "macro_f1")}
            difference = np.abs(scores[name] - scores["PyTorch float32"]).max()
            figures[name] = f1 | {"texts_per_second": len(rows) / seconds[name]}
            figures[name] |= {"largest_difference_of_a_score": float(difference)}
        print(f"\n{table(figures)}\n\n{machine()}")
        chosen = choose_tagger(figures, args)
        taggers[chosen].save(output_dir)
    settings = {"model": args.model, "data": args.data, "rows": len(rows), "which": which}
    write_json(output_dir / "metrics.json", settings | {"saved": chosen, "taggers": figures})
    print(f"{chosen} saved in {output_dir}; next: tag or serve with --model {output_dir}")


def find_test_rows(folder, corpus):
    """Return the test rows among the labelled rows of a corpus, by their texts; None if unknown.

    A tagger that was fitted on all rows at the end, or evaluated by cross-validation, has none.
    """
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        lines = (folder / "test_predictions.jsonl").read_text(encoding="utf-8").split("\n")
        records = [json.loads(line) for line in lines if line]
        texts = {record["text"] for record in records}
    except (OSError, ValueError, KeyError):
        return None
    # A cross-validation tests each row that it trains on.
    crossed = metrics.get("train_samples") == metrics.get("test_samples")
    if crossed or "refit_samples" in metrics or any("fold" in record for record in records):
        return None
    labelled = corpus.dataset.select(corpus.labelled)["text"]
    rows = corpus.labelled[[text in texts for text in labelled]]
    return rows if len(rows) else None


def fit_static(tagger: Tagger, corpus, rows, rng, source: Path, args: ExportArguments) -> Tagger:
    """Return a tagger of static embeddings of the tagger's encoder, fitted to labelled rows."""
    if len(rows) < FEWEST_ROWS:
        raise UserError(
            f"--static: {len(rows)} labelled rows of {args.data} are left to fit to, of at least "
            f"{FEWEST_ROWS}; name a file with more, or lower --texts"
        )
    # A probe or a lookup has an embedder; a trained model has one of the encoder below its head.
    embed = getattr(tagger.scorer, "embedder", getattr(tagger.scorer, "embed", None))
    if embed is None or not isinstance(embed.trainer.model, MeanPooling):
        raise UserError(
            f"--static: {args.model} has no single encoder to distil; name the tagger of one"
        )
    cache = cache_folder(args.cache_dir)
    vectors = distil(embed.trainer, embed.tokenizer, str(source), cache)
    trainer = LengthGroupedTrainer(
        model=StaticEncoder(vectors), args=args, data_collator=PaddingCollator(embed.tokenizer)
    )
    embed = CachedEmbedder(trainer, embed.tokenizer, str(source), cache)

    # Fit on three quarters, tune the threshold on the rest; a text with one label needs none.
    rows = rng.permutation(rows)
    x, y = embed(corpus.dataset.select(rows)["text"][:]), corpus.label_matrix(rows)
    n_tune = len(rows) // 4
    classifier = fit_strategy(logistic_probe(), x[n_tune:], y[n_tune:])
    if tagger.rule.top_k is None:
        thresholds = find_thresholds(classifier(x[:n_tune]), y[:n_tune], tolerance=2)
        rule = DecisionRule.of(
            thresholds, len(tagger.label_names), at_least_one=tagger.rule.at_least_one
        )
    else:
        rule = DecisionRule(top_k=tagger.rule.top_k)
    scorer = EmbeddingScorer(embed, None, classifier)
    return replace(tagger, rule=rule, scorer=scorer, calibration=None)


def choose_tagger(figures: dict, args: ExportArguments) -> str:
    """Return the name of the tagger to save; say why if --precision is auto."""
    if args.static:
        return "static"
    if args.precision != "auto":
        return f"ONNX {args.precision}"
    exact, int8 = figures["ONNX float32"], figures["ONNX int8"]
    # Also where F1 rises by more: it is another tagger then.
    change = max(abs(int8[key] - exact[key]) for key in ("micro_f1", "macro_f1"))
    chosen = "ONNX int8" if change <= F1_TOLERANCE else "ONNX float32"
    print(f"--precision auto: F1 of int8 differs by up to {change:.3f}, so {chosen} is taken")
    return chosen


def table(figures: dict) -> str:
    """Return the figures as a table in Markdown."""
    lines = ["| tagger | micro F1 | macro F1 | texts per second | |", "|---|---|---|---|---|"]
    base = figures["PyTorch float32"]["texts_per_second"]
    for name, f in figures.items():
        speed = f["texts_per_second"]
        lines.append(
            f"| {name} | {f['micro_f1']:.3f} | {f['macro_f1']:.3f} | {speed:,.0f} | "
            f"{speed / base:.1f}x |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
