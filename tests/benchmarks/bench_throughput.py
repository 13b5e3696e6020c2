"""Training throughput of the GitHub tagger beside transformers' own text-classification example.

    RUN_CLASSIFICATION=.../run_classification.py PYTHONPATH=. \
        python tests/benchmarks/bench_throughput.py [--rows N] [--epochs E] [--repeats R]

RUN_CLASSIFICATION names examples/pytorch/text-classification/run_classification.py of transformers.
Both scripts get the same files of training, validation and test rows, model, batch size, epochs and
length limit, on two cores; neither evaluates nor writes checkpoints while it trains. All else is
each script's default. They run by turns, each in a process of its own. Samples per second are
`train_samples_per_second` of each Trainer, and for the recipe also with the time counted in that it
takes to fit its head before; the ratio is of the latter. Micro F1 is over the same test rows: at
tuned thresholds for the recipe, at 0.5 for the example, as each of them does. Prints Markdown.
"""

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from recipes.github_tagger import TaggerArguments
from shared.arguments import parse_arguments
from shared.data import load_data
from shared.hardware import has_fast_bf16
from shared.models import DEFAULT_MODEL, resolve_model
from shared.splitters import nested_slices, train_valid_test_split

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("RECIPES_DATA", ROOT.parent / "shared" / "data"))
PARTS = ("train", "valid", "test")

# The example knows a multilabel column by a `dtype` that columns of lists lost in datasets 4.
START_EXAMPLE = """
import datasets, os, runpy
datasets.List.dtype = "list"
runpy.run_path(os.environ["RUN_CLASSIFICATION"], run_name="__main__")
"""
START_RECIPE = """
import runpy, time
from shared import heads

def timed(*args, fit_head=heads.fit_head, **kwargs):
    start = time.perf_counter()
    fit_head(*args, **kwargs)
    print(f"\\nfit_head: {time.perf_counter() - start}")

heads.fit_head = timed
runpy.run_path("recipes/github_tagger.py", run_name="__main__")
"""
# What the example would fetch from the hub as "f1". The library wants one import in a line.
F1_MODULE = """
import datasets
import evaluate
from sklearn.metrics import f1_score

class F1(evaluate.Metric):
    def _info(self):
        rows = datasets.List(datasets.Value("int32"))
        features = datasets.Features(predictions=rows, references=rows)
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions, references, average):
        return {"f1": f1_score(references, predictions, average=average, zero_division=0)}
"""


class Side(NamedTuple):
    """One script: how it is started, its flags, the file and the name of its figures."""

    name: str
    code: str
    flags: str
    figures: str
    f1: str


def goemotions(n_rows):
    """GoEmotions' own three parts, each cut to at most `n_rows` by a stratified slice."""
    parts, label_names = {}, None
    for part, file in zip(PARTS, ("train", "dev", "test"), strict=True):
        flags = ["--data", str(DATA / "goemotions" / f"{file}.tsv.gz")]
        flags += ["--column_names", "text", "labels", "id"]
        corpus = load_data(parse_arguments(TaggerArguments, flags), label_names=label_names)
        label_names = corpus.label_names
        y = corpus.label_matrix(corpus.labelled)
        rows = nested_slices(y, [min(n_rows, len(y))], random_state=0)[0]
        parts[part] = corpus, corpus.labelled[rows]
    return parts


def issues(n_rows):
    """The issues of huggingface/datasets, split as their configuration says."""
    config = ROOT / "recipes" / "configs" / "hf_datasets_issues.yaml"
    args = parse_arguments(TaggerArguments, ["--config", str(config)])
    corpus = load_data(args)
    y = corpus.label_matrix(corpus.labelled)
    train, *held_out = train_valid_test_split(
        y,
        valid_size=args.valid_size,
        test_size=args.test_size,
        groups=corpus.groups[corpus.labelled],
        random_state=args.seed,
    )
    train = train[nested_slices(y[train], [min(n_rows, len(train))], random_state=0)[0]]
    split = zip(PARTS, (train, *held_out), strict=True)
    return {part: (corpus, corpus.labelled[rows]) for part, rows in split}


def write_parts(parts, folder):
    """Write PART.json, one object per line, which both scripts read."""
    for part, (corpus, rows) in parts.items():
        names = np.array(corpus.label_names)
        with open(folder / f"{part}.json", "w", encoding="utf-8") as file:
            for row in corpus.dataset.select(rows):
                labels = names[row["labels"]].tolist()
                file.write(json.dumps({"text": row["text"], "labels": labels}) + "\n")


def both_sides(max_length, epochs):
    """Flags of the two scripts; $ROWS and $MODEL are the folders of the rows and of the model."""
    alike = f"--num_train_epochs {epochs:g} --per_device_train_batch_size 8 --use_cpu"
    # The example evaluates after training, on the rows it is given for that: the test rows.
    example = (
        f"{alike} --save_strategy no --max_seq_length {max_length} --model_name_or_path $MODEL "
        "--do_train --do_eval --train_file $ROWS/train.json --validation_file $ROWS/test.json "
        "--text_column_names text --label_column_name labels --metric_name $ROWS/f1"
    )
    # The recipe evaluates after each epoch, for its early stopping; the delay keeps it from that.
    recipe = (
        f"{alike} --save_strategy no --max_length {max_length} --model $MODEL "
        "--load_best_model_at_end false --eval_delay 1000000 "
        "--data $ROWS/train.json --valid_data $ROWS/valid.json --test_data $ROWS/test.json"
    )
    return (
        Side("run_classification.py", START_EXAMPLE, example, "all_results.json", "eval_f1"),
        Side("github_tagger.py", START_RECIPE, recipe, "metrics.json", "test_micro_f1"),
    )


def train(side, folder):
    """Run a script in a fresh process; return its figures and the seconds its head took to fit."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder)}
    flags = side.flags.replace("$ROWS", str(folder)).replace("$MODEL", resolve_model(DEFAULT_MODEL))
    with tempfile.TemporaryDirectory(dir=folder) as output_dir:
        command = [sys.executable, "-c", side.code, *flags.split(), "--output_dir", output_dir]
        run = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
        if run.returncode:
            sys.exit(f"{run.stdout[-2000:]}{run.stderr[-4000:]}\nfailed: {shlex.join(command)}")
        figures = json.loads((Path(output_dir) / side.figures).read_text())
    return figures, sum(map(float, re.findall(r"^fit_head: (.+)$", run.stdout, re.MULTILINE)))


def compare(name, parts, max_length, epochs, repeats):
    """Train both sides by turns; print their table and their flags."""
    sides = both_sides(max_length, epochs)
    reported, counted, f1 = ({side.name: [] for side in sides} for _ in range(3))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_parts(parts, folder)
        (folder / "f1").mkdir()
        (folder / "f1" / "f1.py").write_text(F1_MODULE)
        for side in sides * repeats:
            figures, head = train(side, folder)
            assert figures["train_samples"] == len(parts["train"][1]), "other rows than given"
            speed, seconds = figures["train_samples_per_second"], figures["train_runtime"]
            reported[side.name].append(speed)
            counted[side.name].append(speed * seconds / (seconds + head))
            f1[side.name].append(figures[side.f1])
    sizes = ", ".join(f"{len(rows):,} {part}" for part, (_, rows) in parts.items())
    print(f"\n## {name}: {sizes} rows; epochs {epochs:g}, at most {max_length} tokens\n")
    print("| script | training samples/s, by run | with head | median | micro F1 |")
    print("|---|---|---|---|---|")
    for side in counted:
        cells = [", ".join(f"{x:.1f}" for x in values[side]) for values in (reported, counted)]
        cells += [f"{statistics.median(counted[side]):.1f}", f"{statistics.median(f1[side]):.3f}"]
        print(f"| {side} | {' | '.join(cells)} |")
    cells = []
    for values in (reported, counted):
        example, recipe = values.values()
        ratios = [b / a for a, b in zip(example, recipe, strict=True)]
        cells.append(", ".join(f"{ratio:.2f}x" for ratio in ratios))
    print(f"| ratio | {' | '.join(cells)} | **{statistics.median(ratios):.2f}x** | |\n")
    print("\n".join(f"- `{side.name} {side.flags}`" for side in sides), flush=True)


def main():
    parser = argparse.ArgumentParser(description="Training throughput beside run_classification.py")
    parser.add_argument("--rows", type=int, default=2000, help="training rows at most")
    parser.add_argument(
        "--epochs", type=float, default=3, help="passes (default: 3, the Trainer's)"
    )
    parser.add_argument("--repeats", type=int, default=1, help="turns of each script (default: 1)")
    args = parser.parse_args()
    if not Path(os.environ.get("RUN_CLASSIFICATION", "")).is_file():
        sys.exit("skipped: RUN_CLASSIFICATION does not name transformers' run_classification.py")
    if not DATA.is_dir():
        sys.exit(f"skipped: {DATA} does not exist; name the folder of the data by RECIPES_DATA")
    os.environ["RECIPES_DATA"] = str(DATA)  # the configuration of the issues refers to it
    os.environ["RUN_CLASSIFICATION"] = str(Path(os.environ["RUN_CLASSIFICATION"]).resolve())
    cores = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, cores)
    precision = "fast bf16" if has_fast_bf16() else "no fast bf16"
    print(f"{len(cores)} CPU cores, {precision}; {DEFAULT_MODEL}, batches of 8")
    for name, parts, max_length in (
        ("GoEmotions", goemotions, 128),
        ("huggingface/datasets issues", issues, 256),
    ):
        compare(name, parts(args.rows), max_length, args.epochs, args.repeats)


if __name__ == "__main__":
    main()
