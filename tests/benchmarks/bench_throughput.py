"""Compare the training throughput of the GitHub tagger with the example script of transformers.

    RUN_CLASSIFICATION=.../run_classification.py PYTHONPATH=. \
        python tests/benchmarks/bench_throughput.py [--rows N] [--epochs E] [--repeats R]

RUN_CLASSIFICATION is the path of examples/pytorch/text-classification/run_classification.py of
transformers. All runs get the same training, validation and test rows, model, batch size, epochs
and maximum length, and use two cores; none evaluates or writes checkpoints during training. The
recipe runs with its defaults. The example runs with its defaults; then with dynamic padding
(--pad_to_max_length false); then also with batches of similar length; then also with bfloat16, if
the hardware supports it, which are its best settings. The runs alternate, each in its own process.
Samples per second are `train_samples_per_second` of each Trainer; for the recipe they are also
given with the time to fit its head included, and the ratio uses the latter. Micro F1 is measured on
the same test rows, with tuned thresholds for the recipe and with 0.5 for the example, which are
their defaults. Prints Markdown.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from recipes.github_tagger import TaggerArguments
from shared.cli import has_fast_bf16, parse_arguments
from shared.data import SplitArguments, load_data, load_held_out, split_corpus
from shared.models import DEFAULT_MODEL, resolve_model
from shared.splitters import nested_slice

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("RECIPES_DATA", ROOT.parent / "shared" / "data"))
PARTS = ("train", "valid", "test")

# The example recognises a multilabel column by a `dtype` that columns of lists no longer have since
# datasets 4, and it downloads its metric from the hub. Both are replaced here.
START_EXAMPLE = """
import os, runpy, types
import datasets, evaluate
from sklearn.metrics import f1_score

def compute(predictions, references, average):
    return {"f1": f1_score(references, predictions, average=average, zero_division=0)}

datasets.List.dtype = "list"
evaluate.load = lambda *args, **kwargs: types.SimpleNamespace(compute=compute)
runpy.run_path(os.environ["RUN_CLASSIFICATION"], run_name="__main__")
"""
# The recipe fits its head before `train()`, so the Trainer does not measure that time.
START_RECIPE = """
import runpy, time
from shared.models import first_weights

def timed(*args, fit_head=first_weights.fit_head, **kwargs):
    start = time.perf_counter()
    fit_head(*args, **kwargs)
    print(f"\\nfit_head: {time.perf_counter() - start}")

first_weights.fit_head = timed
runpy.run_path("recipes/github_tagger.py", run_name="__main__")
"""


class Side(NamedTuple):
    name: str
    code: str
    flags: str
    figures: str  # file in the output folder
    f1: str  # key of micro F1 in that file


def goemotions(n_rows):
    """Return the three parts of GoEmotions, each a stratified subset of at most `n_rows`."""
    files = {
        flag: str(DATA / "goemotions" / f"{name}.tsv.gz")
        for flag, name in (("data", "train"), ("valid_data", "dev"), ("test_data", "test"))
    }
    args = SplitArguments(**files, column_names=["text", "labels", "id"])
    corpus = load_data(args)
    parts = split_corpus(corpus, load_held_out(args, corpus), args, seed=0)
    return {part: cut(parts, part, n_rows) for part in PARTS}


def issues(n_rows):
    """Return the issues of huggingface/datasets, split as in their config."""
    config = ROOT / "recipes" / "configs" / "hf_datasets_issues.yaml"
    args = parse_arguments(TaggerArguments, ["--config", str(config)])
    parts = split_corpus(load_data(args), {}, args, seed=args.seed)
    return {**parts.rows, "train": cut(parts, "train", n_rows)}


def cut(parts, part, n_rows):
    labels = parts.labels[part]
    return parts.rows[part].select(nested_slice(labels, min(n_rows, len(labels)), random_state=0))


def write_parts(parts, folder):
    """Write PART.json, one object per line, for both scripts."""
    for part, dataset in parts.items():
        names = np.array(dataset.features["labels"].feature.names)
        with open(folder / f"{part}.json", "w", encoding="utf-8") as file:
            for row in dataset:
                labels = names[row["labels"]].tolist()
                file.write(json.dumps({"text": row["text"], "labels": labels}) + "\n")


def sides_of(max_length, epochs):
    """Return the example with each of its settings, then the recipe; $ROWS, $MODEL: folders."""
    alike = f"--num_train_epochs {epochs:g} --per_device_train_batch_size 8 --use_cpu"
    # The example evaluates after training, here on the test rows.
    example = (
        f"{alike} --max_seq_length {max_length} --model_name_or_path $MODEL --do_train --do_eval "
        "--train_file $ROWS/train.json --validation_file $ROWS/test.json "
        "--text_column_names text --label_column_name labels --save_strategy no"
    )
    # The recipe evaluates after each epoch, for early stopping; the delay prevents that.
    recipe = (
        f"{alike} --max_length {max_length} --model $MODEL --data $ROWS/train.json "
        "--valid_data $ROWS/valid.json --test_data $ROWS/test.json "
        "--save_strategy no --load_best_model_at_end false --eval_delay 1000000"
    )
    return (
        *(
            Side(
                f"run_classification.py, {name}",
                START_EXAMPLE,
                flags,
                "all_results.json",
                "eval_f1",
            )
            for name, flags in peer_settings(example).items()
        ),
        Side("github_tagger.py", START_RECIPE, recipe, "metrics.json", "test_micro_f1"),
    )


def peer_settings(defaults):
    """Return the flags of the example by setting; each setting includes the previous ones."""
    dynamic = f"{defaults} --pad_to_max_length false"
    grouped = f"{dynamic} --train_sampling_strategy group_by_length"
    settings = {
        "defaults": defaults,
        "dynamic padding": dynamic,
        "and length grouping": grouped,
    }
    if has_fast_bf16(on_cpu=True):  # elsewhere it is slower
        settings["and bfloat16"] = f"{grouped} --bf16"
    return settings


def train(side, folder, n_rows):
    """Run a script in a new process; return samples/s, those with its head, and micro F1."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder)}
    flags = side.flags.replace("$ROWS", str(folder)).replace("$MODEL", resolve_model(DEFAULT_MODEL))
    with tempfile.TemporaryDirectory(dir=folder) as output_dir:
        command = [sys.executable, "-c", side.code, *flags.split(), "--output_dir", output_dir]
        run = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
        if run.returncode:
            sys.exit(f"{run.stdout[-2000:]}{run.stderr[-4000:]}\nfailed: {side.name} {flags}")
        figures = json.loads((Path(output_dir) / side.figures).read_text())
    assert figures["train_samples"] == n_rows, "not trained on the rows given"
    speed = figures["train_samples_per_second"]
    seconds = figures["epoch"] * n_rows / speed
    head = sum(map(float, re.findall(r"^fit_head: (.+)$", run.stdout, re.MULTILINE)))
    return speed, speed * seconds / (seconds + head), figures[side.f1]


def compare(name, parts, max_length, epochs, repeats):
    """Train all sides alternately; print a table of them and their flags."""
    sides = sides_of(max_length, epochs)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_parts(parts, folder)
        n_rows = len(parts["train"])
        runs = [[train(side, folder, n_rows) for side in sides] for _ in range(repeats)]
    figures = np.array(runs).transpose(1, 2, 0)  # side, figure, run
    sizes = ", ".join(f"{len(rows):,} {part}" for part, rows in parts.items())
    print(f"\n## {name}: {sizes} rows; epochs {epochs:g}, at most {max_length} tokens\n")
    print("| script | training samples/s, by run | with head | median | micro F1 |")
    print("|---|---|---|---|---|")
    for side, (reported, counted, f1) in zip(sides, figures, strict=True):
        by_run = [", ".join(f"{value:.1f}" for value in values) for values in (reported, counted)]
        median = f"{np.median(counted):.1f} | {np.median(f1):.3f}"
        print(f"| {side.name} | {' | '.join(by_run)} | {median} |")
    print("\n| github_tagger.py, times | training samples/s | with head |\n|---|---|---|")
    for side, peer in zip(sides[:-1], figures[:-1], strict=True):
        ratios = np.median(figures[-1, :2] / peer[:2], axis=1)
        print(f"| {side.name} | {ratios[0]:.2f}x | **{ratios[1]:.2f}x** |")
    print()
    print("\n".join(f"- `{side.name} {side.flags}`" for side in sides), flush=True)


def main():
    parser = argparse.ArgumentParser(description="Training throughput beside run_classification.py")
    parser.add_argument("--rows", type=int, default=2000, help="training rows at most")
    parser.add_argument("--epochs", type=float, default=3, help="default: 3, the Trainer's")
    parser.add_argument("--repeats", type=int, default=1, help="turns of each script (default: 1)")
    args = parser.parse_args()
    example = Path(os.environ.get("RUN_CLASSIFICATION") or "run_classification.py").resolve()
    for path, variable in ((example, "RUN_CLASSIFICATION"), (DATA, "RECIPES_DATA")):
        if not path.exists():
            print(f"skipped: {path} does not exist; {variable} must name it")
            return
    # All runs inherit these variables; the config of the issues uses RECIPES_DATA.
    os.environ |= {"RUN_CLASSIFICATION": str(example), "RECIPES_DATA": str(DATA.resolve())}
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    print(f"Two CPU cores, fast bf16: {has_fast_bf16(on_cpu=True)}; {DEFAULT_MODEL}, batches of 8")
    options = args.epochs, args.repeats
    compare("GoEmotions", goemotions(args.rows), 128, *options)
    compare("huggingface/datasets issues", issues(args.rows), 256, *options)


if __name__ == "__main__":
    main()
