"""Flags with values that make no sense, tried one at a time on recipes with a tiny model."""

import dataclasses
import signal
import sys
from contextlib import contextmanager

from conftest import TINY_PROMPTS, save_tiny_mlm

RECIPES = (
    *("github_tagger", "goemotions", "imdb_cnn_rnn", "document_classification", "lora"),
    *("few_label_probe", "embedding_lookup", "naive_bayes", "zero_shot", "domain_adaptation"),
    *("train_tokenizer", "augmentation", "best", "few_label_benchmark", "llm_labels"),
    *("uda", "self_training", "co_training", "fetch_issues", "label_next", "agreement"),
    *("explore", "gan", "images", "language_model", "multi_task", "pet", "prompts", "seq2seq"),
    *("series", "span_qa", "tabular", "techniques"),
)
WORDS = ("model", "label", "token", "server", "machine", "script", "example", "guide", "page")
VALUES = ("nan", "inf", "0", "-1", "0.5", "1e30", "99999999999", "nonsense", "")
# Flags that choose what is computed, not how: a value for them is not nonsense, or starts a search
# of the hub.
NOT_TRIED = {"push_to_hub", "hub_always_push"}


class TooSlow(Exception):
    """A run that does not end."""


def base_flags(name, tiny_model, tiny_issues, folder):
    """Return flags of a recipe that runs in about a second; the tried flag comes after them."""
    data = ("--data", tiny_issues, "--cache_dir", folder / "cache", "--output_dir", folder / "out")
    model = ("--model", tiny_model, "--use_cpu", "--bf16", "false", "--max_length", 32)
    once = ("--max_steps", 1, "--train_size", 24)
    network = ("--vocab_size", 300, "--hidden_size", 16)
    questions = folder / "questions.csv"
    questions.write_text(
        "context,question,answer\n"
        + "".join(f"the {word} is in a batch,which,{word}\n" for word in WORDS),
        encoding="utf-8",
    )
    values = "".join(f"2024-01-{day:02},{day % 7},{day}\n" for day in range(1, 32))
    values += "".join(f"2024-02-{day:02},{day % 7},{day}\n" for day in range(1, 30))
    (folder / "series.csv").write_text("date,a,b\n" + values, encoding="utf-8")
    if name == "pet" and not (folder / "mlm").exists():
        save_tiny_mlm(tiny_model, folder / "mlm")
        (folder / "prompts.yaml").write_text(TINY_PROMPTS, "utf-8")
    return {
        "agreement": data,
        "augmentation": (*data, *model, *once, "--compare", "false"),
        "best": (*data, "--model", tiny_model, "--max_length", 32),
        "co_training": (*data, *model, "--train_size", 24),
        "document_classification": (
            *(*data, *model[:-2], "--max_steps", 1, "--folds", 2, "--window", 32, "--stride", 4),
        ),
        "domain_adaptation": (*data, *model, "--max_steps", 1),
        "embedding_lookup": (*data, *model, "--evaluate", "held_out"),
        "explore": (*data, *model, "--max_map", 20),
        # Nobody answers there.
        "fetch_issues": (
            *("--repo", "owner/name", "--api", "http://127.0.0.1:9"),
            *("--output", folder / "issues.jsonl"),
        ),
        "few_label_benchmark": (*data, "--methods", "naive_bayes", "--sizes", 8),
        "few_label_probe": (*data, *model, "--evaluate", "held_out"),
        "gan": (
            *("--use_cpu", "--max_steps", 1, "--base_width", 2, "--features", "pixels"),
            *("--n_samples", 50, *data[4:]),
        ),
        "github_tagger": (*data, *model, *once),
        "goemotions": (*data, *model, *once, "--architecture", "scratch", *network),
        "imdb_cnn_rnn": (*data, "--use_cpu", "--bf16", "false", *once, *network),
        "images": ("--use_cpu", "--bf16", "false", "--max_steps", 1, "--width", 4, *data[4:]),
        "label_next": (*data, "--encoder", tiny_model, *model[2:]),
        "language_model": (
            *(*data, "--use_cpu", "--architecture", "mlp", "--max_steps", 1, "--samples", 1),
            *("--hidden_size", 16, "--sample_length", 5),
        ),
        # Nobody answers there.
        "llm_labels": (*data, "--model", "m", "--endpoint", "http://127.0.0.1:9/v1"),
        "lora": (*data, *model, *once, "--methods", "head", "lora", "--rank", 2),
        "multi_task": (*data, *model, "--max_steps", 1, "--tasks", "labels"),
        "naive_bayes": (*data, "--evaluate", "held_out"),
        "pet": (
            *(*data, *model, *once, "--loss", "adapet", "--masked_model", folder / "mlm"),
            *("--prompts", folder / "prompts.yaml"),
        ),
        "span_qa": (*data, *model, "--data", questions, "--max_steps", 1, "--stride", 4),
        "prompts": (*data, *model),
        "train_tokenizer": (*data, "--model", tiny_model, "--vocab_size", 90),
        "self_training": (*data, *model, *once, "--uncertainty", "none", "--rounds", 1),
        "seq2seq": (
            *(*data, "--use_cpu", "--bf16", "false", "--architecture", "rnn", "--max_steps", 1),
            *("--hidden_size", 16, "--vocab_size", 300, "--max_target_length", 5),
        ),
        "series": (
            *("--data", folder / "series.csv", "--output_dir", folder / "out", "--use_cpu"),
            *("--architecture", "transformer", "--hidden_size", 16, "--input_size", 12),
            *("--horizon", 2, "--max_steps", 1),
        ),
        "tabular": (
            *("--output_dir", folder / "out", "--use_cpu", "--max_steps", 1, "--folds", 2),
            *("--members", 1, "--hidden_size", 16, "--baselines", "false"),
        ),
        "techniques": (
            *(*data, "--use_cpu", "--max_steps", 1, "--num_seeds", 1, "--techniques", "clipping"),
            *network,
        ),
        "uda": (*data, *model, *once),
        "zero_shot": (*data, *model, "--method", "embedding"),
    }[name]


def arguments_class(module):
    """Return the dataclass of the flags of a recipe, a module."""
    classes = [c for c in vars(module).values() if dataclasses.is_dataclass(c)]
    (arguments,) = (
        c for c in classes if c.__module__ == module.__name__ and c.__name__.endswith("Arguments")
    )
    return arguments


def tried_flags(module, *, own):
    """Return the flags of a recipe: its own, or those of `transformers.TrainingArguments`."""
    from transformers import TrainingArguments

    standard = {field.name for field in dataclasses.fields(TrainingArguments)}
    fields = [field.name for field in dataclasses.fields(arguments_class(module)) if field.init]
    return [field for field in fields if (field in standard) != own and field not in NOT_TRIED]


@contextmanager
def time_limit(seconds):
    """Raise `TooSlow` in a block that takes longer."""

    def stop(*_):
        raise TooSlow

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def outcome(recipe, *flags, seconds=120):
    """Run a recipe; return its exit code and what it printed on stderr.

    The code is 0 without an error, and 1 for one that nobody expected.
    """
    from shared.cli.errors import exit_on_user_error

    code = 0
    try:
        with time_limit(seconds), exit_on_user_error():
            recipe(*flags)
    except SystemExit as end:
        code = end.code
    sys.stdout.flush()
    return code, recipe.capfd.readouterr().err
