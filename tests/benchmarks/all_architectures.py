"""Run every recipe that takes ``--model`` on a tiny model of every text architecture.

    python tests/benchmarks/all_architectures.py --recipes github_tagger lora --models bert t5

Without flags all recipes run on all architectures, which takes about half an hour on one core. It
prints the table of recipes/README.md: what each recipe does with each architecture. A run works if
it ends, and if its tagger then gives 40 texts the same scores in batches of 1 and of 40. It is
refused if it ends with one line and exit code 2. Anything else is a failure, and the exit code 1.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from time import perf_counter

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "recipes")]

from command_line import load_recipe  # noqa: E402
from tiny_models import ACCEPTED, REFUSED, save_tiny_model  # noqa: E402

WORDS = [
    "a",
    "the",
    "crash",
    "error",
    "page",
    "slow",
    "fast",
    "option",
    "add",
    "wish",
    "memory",
    "cache",
    "file",
    "line",
    "help",
]
TRAINING = ["--max_steps", "1", "--per_device_train_batch_size", "8", "--max_length", "32"]
ZERO_SHOT = ["--max_length", "32", "--method"]
# Recipe: its flags, and the class of transformers that the model is saved with.
RECIPES = {
    "github_tagger": ([*TRAINING, "--bf16", "true"], "AutoModel"),
    "goemotions": (TRAINING, "AutoModel"),
    "document_classification": (
        [*TRAINING[:4], "--window", "24", "--stride", "4", "--folds", "2"],
        "AutoModel",
    ),
    "lora": ([*TRAINING, "--methods", "full", "lora"], "AutoModel"),
    "augmentation": ([*TRAINING, "--augmentations", "swap", "--copies", "1"], "AutoModel"),
    "uda": (TRAINING, "AutoModel"),
    "self_training": ([*TRAINING, "--uncertainty", "none", "--rounds", "1"], "AutoModel"),
    "few_label_probe": (["--max_length", "32", "--bf16", "false"], "AutoModel"),
    "co_training": (["--max_length", "32", "--bf16", "false"], "AutoModel"),
    "embedding_lookup": (["--max_length", "32", "--bf16", "false"], "AutoModel"),
    "zero_shot": ([*ZERO_SHOT, "nli"], "AutoModelForSequenceClassification"),
    "zero_shot_embedding": ([*ZERO_SHOT, "embedding"], "AutoModel"),
    "zero_shot_fill_mask": ([*ZERO_SHOT, "fill_mask"], "AutoModelForMaskedLM"),
    "domain_adaptation": (TRAINING, "AutoModel"),
    "train_nli": ([*TRAINING, "--rank", "2"], "AutoModel"),
}
CLASSES = {0: "entailment", 1: "neutral", 2: "contradiction"}


def write_data(folder):
    """Write 60 labelled and 20 unlabelled texts, and pairs; return the two files."""
    import numpy as np

    rng = np.random.default_rng(0)
    rows = []
    for number in range(80):
        label = ["bug", "docs"][number % 2]
        text = " ".join([label, *rng.choice(WORDS, size=int(rng.integers(3, 40)))])
        rows.append({"text": f"{text} {number}", "labels": [label] if number < 60 else []})
    pairs = [
        {"premise": row["text"], "hypothesis": "it is a bug", "label": number % 3}
        for number, row in enumerate(rows[:30])
    ]
    for name, values in (("texts", rows), ("pairs", pairs)):
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in values), encoding="utf-8")
    return folder / "texts.jsonl", folder / "pairs.jsonl"


def make_model(folder, architecture, recipe):
    """Save a tiny model below a folder, with the head that a recipe needs; return its folder."""
    words = [*WORDS, "bug", "docs", "it", "is", *map(str, range(80))]
    head = RECIPES[recipe][1]
    settings = {"id2label": CLASSES} if "Sequence" in head else {}
    try:
        return save_tiny_model(folder / "model", architecture, words, head, **settings)
    except ValueError:  # transformers has no such head
        return save_tiny_model(folder / "model", architecture, words)


def run(name, model, data, pairs, folder):
    """Run a recipe on a model, below a folder; return "works", or why it does not."""
    output_dir = folder / "output"
    from shared.cli.errors import UserError

    flags, _ = RECIPES[name]
    flags = [*flags, "--model", model, "--output_dir", output_dir, "--use_cpu"]
    recipe = "zero_shot" if name.startswith("zero_shot") else name
    if name == "train_nli":
        flags += ["--train_data", pairs]
    else:
        flags += ["--data", data, "--cache_dir", folder / "cache"]
    sys.argv = [recipe, *map(str, flags)]
    silent = io.StringIO()
    try:
        with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
            load_recipe(recipe).main()
            return check_tagger(output_dir)
    except UserError as error:
        return f"refused: {error}"
    except Exception:
        return f"FAILED: {traceback.format_exc()[-1500:]}"


def check_tagger(folder):
    """Return whether the tagger in a folder gives the same scores in batches of 1 and of 40."""
    import numpy as np
    from transformers import TrainingArguments

    from shared.taggers import load_tagger

    if not (folder / "tagger.json").is_file():
        return "works"
    texts = [" ".join(WORDS[: 1 + n % len(WORDS)] * (1 + n // 20)) for n in range(40)]
    scores = []
    for size in (1, 40):
        args = TrainingArguments(
            str(folder), per_device_eval_batch_size=size, disable_tqdm=True, use_cpu=True
        )
        scores.append(load_tagger(folder, args).scores(texts))
    difference = float(np.abs(scores[0] - scores[1]).max())
    # A head that is fitted to the nearly constant features of a random model multiplies rounding
    # errors, up to 3e-5 (LayoutLM); in float64 the same scores differ by 1e-13 at most.
    # tests/shared/models/test_architectures.py checks 1e-5 without such a head.
    return "works" if difference < 1e-4 else f"FAILED: scores differ by {difference:.1e}"


def main():
    """Run what the flags name; print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--models", nargs="+", default=[*ACCEPTED, *REFUSED])
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    from matplotlib.figure import Figure
    from transformers.utils import logging

    Figure.savefig = lambda *args, **kwargs: None  # plots take half of the time
    logging.disable_progress_bar()
    failed = False
    for model in args.models:
        for recipe in args.recipes:
            with tempfile.TemporaryDirectory() as name:
                root, started = Path(name), perf_counter()
                data, pairs = write_data(root)
                folder = make_model(root, model, recipe)
                result = run(recipe, folder, data, pairs, root).replace(str(folder), "MODEL")
                failed |= result.startswith("FAILED")
                seconds = f"{perf_counter() - started:.1f} s"
                print(" | ".join((model, recipe, seconds, result)), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
