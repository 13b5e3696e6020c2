"""A tiny model and a tiny labelled file, made once for all tests."""

import gc
import json
import os
import sys

import numpy as np
import pytest
from forks import Script
from hypothesis import settings

# Set before torch is imported, and inherited by the processes that tests start. No test may reach
# for the network; tiny tensors are computed fastest, and always alike, by one thread.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Else each of the hundreds of recipes that tests start would compile all modules anew, and each run
# of the tests would rewrite their assertions anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# No test cuts the power; waiting for the disk takes a tenth of the time. `forks` does the same.
os.fsync = lambda file: None

# A busy machine is no failure.
settings.register_profile("without_deadline", deadline=None)
settings.load_profile("without_deadline")

_MANY_MODULES = 300


def pytest_runtest_setup():
    """Let no garbage collection visit imported modules.

    The Trainer collects garbage at each start, which takes .3 s with all of transformers imported.
    """
    if len(sys.modules) - pytest_runtest_setup.n_modules > _MANY_MODULES:
        pytest_runtest_setup.n_modules = len(sys.modules)
        gc.collect()
        gc.freeze()


pytest_runtest_setup.n_modules = 0

KEYWORDS = {
    "bug": "crash traceback error fails broken exception regression segfault",
    "documentation": "docs typo docstring readme tutorial example page guide",
    "feature": "add support option proposal allow wish extend request",
    "speed": "slow memory faster latency throughput profile cache cores",
}
# One token of the tiny model for each label, for recipes that fill in words.
TINY_PROMPTS = """
templates: ['{mask}: {text}', '{text} is {mask}']
verbalizer: {bug: [crash, error], documentation: docs, feature: add, speed: slow}
"""
FILLER = (
    "the a of to in when with model training run data file after before version install loading "
    "batch epoch token label set call class method value return result please thanks help new old "
    "script notebook server machine python first second again only some each many issue here"
)


@pytest.fixture
def forked_scripts(monkeypatch):
    """The Python scripts that a test starts by `subprocess` are forks; see `forks`."""
    monkeypatch.setattr("subprocess.Popen", Script)


@pytest.fixture(scope="session")
def tiny_issues(tmp_path_factory):
    """Path of the file of `write_tiny_issues`."""
    return write_tiny_issues(tmp_path_factory.mktemp("issues") / "tiny_issues.jsonl")


def write_tiny_issues(path):
    """Write a JSONL file with ``title``, ``body`` and ``labels``; return its path.

    120 labelled rows, whose words tell their labels (the four of `KEYWORDS`, 24 or more rows
    each, a fifth of the rows with two), then 12 rows without labels.
    """
    rng = np.random.default_rng(0)
    names = list(KEYWORDS)
    rows = []
    for number in range(132):
        labels = [names[number % 4]]
        if number % 5 == 0:
            labels.append(names[(number + 1 + number // 5 % 3) % 4])
        words = list(rng.choice(FILLER.split(), size=int(rng.integers(8, 50))))
        for label in labels:
            words += list(rng.choice(KEYWORDS[label].split(), size=5))
        rng.shuffle(words)
        rows.append(
            {
                "title": " ".join(words[:5]),
                "body": " ".join(words[5:]),
                "labels": labels if number < 120 else [],
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """Path of the folder of `save_tiny_model`."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def save_tiny_model(folder):
    """Save a random BERT encoder (32 wide, 2 layers, no dropout), tokenizer; return the folder.

    The tokenizer knows the words of `tiny_issues`, and letters for all others.
    """
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir()
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,:;!?()'-"
    words = sorted(set(" ".join([FILLER, *KEYWORDS.values()]).split()) - set(letters))
    vocabulary = [
        *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
        *letters,
        *(f"##{letter}" for letter in letters),
        *words,
    ]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    tokenizer = BertTokenizerFast.from_pretrained(folder)
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config, add_pooling_layer=True).save_pretrained(folder)
    return folder


def _with_head(tiny_model, folder, head, **settings):
    """Save the tiny model with a random head of another kind; return its folder."""
    import torch
    import transformers

    transformers.AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, head).from_pretrained(tiny_model, **settings)
        for name, parameter in model.named_parameters():  # far from indifferent
            if name.startswith("classifier"):
                torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_nli(tiny_model, tmp_path_factory):
    """Path of the folder of `save_tiny_nli`."""
    return save_tiny_nli(tiny_model, tmp_path_factory.mktemp("nli") / "tiny_nli")


def save_tiny_nli(tiny_model, folder):
    """Save the tiny model as one for language inference, with a random head; return the folder."""
    names = dict(enumerate(["contradiction", "neutral", "entailment"]))
    settings = {"id2label": names, "label2id": {name: i for i, name in names.items()}}
    return _with_head(tiny_model, folder, "BertForSequenceClassification", **settings)


@pytest.fixture(scope="session")
def tiny_mlm(tiny_model, tmp_path_factory):
    """Path of the tiny model with a random head for hidden tokens."""
    return save_tiny_mlm(tiny_model, tmp_path_factory.mktemp("mlm") / "tiny_mlm")


def save_tiny_mlm(tiny_model, folder):
    """Save the tiny model with a random head for hidden tokens; return its folder."""
    return _with_head(tiny_model, folder, "BertForMaskedLM")
