"""Recipes on architectures other than BERT, in one process.

tests/benchmarks/all_architectures.py runs every recipe on every architecture.
"""

import re
import sys

import all_architectures as walk
import pytest
from command_line import ROOT
from tiny_models import ACCEPTED

# Each recipe on some architectures, chosen for what is special about them.
PAIRS = [
    ("github_tagger", "deberta"),  # no bfloat16
    ("github_tagger", "gpt2"),  # a decoder: its head reads the last token
    ("github_tagger", "t5"),  # an encoder-decoder
    ("github_tagger", "xlnet"),  # padded on the left
    ("goemotions", "squeezebert"),  # calls its pooler always
    ("goemotions", "gemma2"),  # another attention kernel than the head, in bfloat16
    ("document_classification", "fnet"),  # no attention mask
    ("augmentation", "xlnet"),
    ("lora", "modernbert"),
    ("few_label_probe", "bart"),
    ("embedding_lookup", "canine"),  # no table of embeddings
    ("zero_shot", "bart"),
    ("zero_shot_embedding", "funnel"),
    ("zero_shot_fill_mask", "distilbert"),
    ("domain_adaptation", "fnet"),
    ("train_nli", "electra"),
]
REFUSED = [
    ("github_tagger", "reformer", "reformer models give the same text other outputs each time"),
    ("embedding_lookup", "xmod", "xmod models cannot read plain texts"),
    ("domain_adaptation", "llama", "no masked language model for llama models"),
    ("domain_adaptation", "bart", r"an encoder-decoder \(bart\)"),
    ("lora", "squeezebert", "peft finds no layers to adapt in 'squeezebert'"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return walk.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def run(data, tmp_path, monkeypatch):
    """Run a recipe on a tiny model of an architecture; return "works", or why it does not."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [])
    # Drawing takes half of the time.
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *args, **kwargs: None)

    def run(recipe, architecture):
        return walk.run(recipe, walk.make_model(tmp_path, architecture, recipe), *data, tmp_path)

    return run


@pytest.mark.parametrize(("recipe", "architecture"), PAIRS)
def test_a_recipe_works(recipe, architecture, run):
    assert run(recipe, architecture) == "works"


@pytest.mark.parametrize(("recipe", "architecture", "reason"), REFUSED)
def test_what_does_not_work_is_refused_in_one_line(recipe, architecture, reason, run):
    result = run(recipe, architecture)
    assert result.startswith("refused: ")
    assert "\n" not in result
    assert re.search(reason, result)


def test_the_readme_names_all_architectures():
    rows = re.findall(
        r"(?m)^\| [\w-]+ \| (.*?) \|", (ROOT / "recipes/README.md").read_text("utf-8")
    )
    named = {name.split(" (")[0] for row in rows for name in row.split(", ")}
    assert {*ACCEPTED, *walk.REFUSED} <= named
