"""Taggers of trained models: adapters and the model below them, classifiers of other programs."""

import json
import shutil

import numpy as np
import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from tiny_models import change_tokenizer, save_tiny_model
from transformers import TrainingArguments

from shared.cli.errors import UserError
from shared.evaluation.rules import DecisionRule
from shared.models.heads import PooledForSequenceClassification
from shared.models.lengths import limit_length
from shared.models.loading import load_encoder, load_tokenizer
from shared.taggers import MeanScorer, Tagger, copy_tagger, load_tagger, save_trained_model
from shared.training.adapters import adapt

LABELS = ["bug", "docs"]
RULE = DecisionRule((0.5, 0.5))
TEXTS = ["crash error", "docs typo"]


@pytest.fixture(scope="module")
def trained(tiny_model, tmp_path_factory):
    """Return a folder with a model, ``base``, and beside it a prompt-tuned one, ``prompt``."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    tokenizer = load_tokenizer(str(tiny_model))
    encoder = load_encoder(str(tiny_model), tokenizer=tokenizer)
    limit_length(tokenizer, encoder, 48)
    base = PooledForSequenceClassification.from_encoder(encoder, LABELS)
    base.name_or_path = str(folder / "base")
    base.save_pretrained(folder / "base")
    model = adapt(base, "prompt", prompt_tokens=3)
    for part in (model, model.config, tokenizer):
        part.save_pretrained(folder / "prompt")
    save_trained_model(folder / "prompt", LABELS, RULE)
    return folder


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def saved_base(folder):
    return json.loads((folder / "tagger.json").read_text("utf-8"))["encoder"]["model"]


@pytest.fixture
def new_precision():
    """Return a function that makes arguments, which reset the precision that Trainers share."""
    yield lambda folder, **flags: TrainingArguments(folder, use_cpu=True, **flags)
    AcceleratorState._reset_state()


def test_a_tagger_loads_before_and_after_a_training_in_bfloat16(run, tmp_path, new_precision):
    before = load_tagger(run / "prompt", threshold=0.5).scorer(TEXTS)
    arguments = new_precision(tmp_path, bf16=True)
    assert arguments.device.type == "cpu"  # this resets the precision
    Accelerator(mixed_precision=arguments.mixed_precision)
    for args in (None, arguments):
        tagger = load_tagger(run / "prompt", args, threshold=0.5)
        assert np.array_equal(tagger.scorer(TEXTS), before)


def test_a_training_in_bfloat16_can_follow_a_tagger_with_its_arguments(
    run, tmp_path, new_precision
):
    arguments = new_precision(tmp_path, bf16=True)
    assert arguments.device.type == "cpu"
    load_tagger(run / "prompt", arguments, threshold=0.5)
    assert Accelerator(mixed_precision=arguments.mixed_precision).mixed_precision == "bf16"


def test_no_texts_have_no_scores(run):
    assert load_tagger(run / "prompt").scorer([]).shape == (0, 2)


@pytest.mark.parametrize("how", ["save", "copy"])
def test_a_copy_of_an_adapter_refers_to_the_model_below_it(how, run, tmp_path):
    tagger = load_tagger(run / "prompt")
    copies = [run / "other", tmp_path / "deep" / "below" / "other"]
    for folder in copies:
        if how == "save":
            tagger.save(folder)
        else:
            copy_tagger(run / "prompt", folder)
        np.testing.assert_array_equal(load_tagger(folder).scores(TEXTS), tagger.scores(TEXTS))
    # An adapter and the model beside it can be moved together.
    bases = [saved_base(folder) for folder in (run / "prompt", *copies)]
    assert bases == ["../base", "../base", str(run / "base")]


@pytest.mark.parametrize("how", ["save", "copy"])
def test_members_of_a_mean_refer_to_the_model_below_them(how, run, tmp_path):
    tagger = load_tagger(run / "prompt")
    mean = Tagger(LABELS, RULE, MeanScorer([tagger, tagger], ["first", "second"]))
    mean.save(tmp_path / "mean")
    if how == "copy":
        copy_tagger(tmp_path / "mean", tmp_path / "copy")
    loaded = load_tagger(tmp_path / ("mean" if how == "save" else "copy"))
    np.testing.assert_allclose(loaded.scores(TEXTS), tagger.scores(TEXTS))


def test_a_flag_for_the_encoder_of_another_tagger_leaves_an_adapter_alone(
    run, tiny_model, tmp_path, monkeypatch
):
    """Of several taggers, one may be fitted on an encoder that did not move."""
    shutil.copytree(tiny_model, tmp_path / "base")  # `../base` from the working directory
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    tagger = load_tagger(run / "prompt", encoder=str(tiny_model))
    assert tagger.scores(TEXTS).shape == (2, 2)
    (run / "base").rename(run / "moved")
    with pytest.raises(UserError, match="not the encoder that the tagger was fitted on"):
        load_tagger(run / "prompt", encoder=str(tiny_model))
    with pytest.raises(UserError, match=f"the encoder {run / 'base'} that the tagger was fitted"):
        load_tagger(run / "prompt")


def test_a_classifier_whose_tokenizer_names_no_length_reads_long_texts(tmp_path):
    settings = {"max_position_embeddings": 50, "num_labels": 2, "thresholds": [0.5, 0.5]}
    folder = save_tiny_model(
        tmp_path,
        "bert",
        ["the", "cat", "sat"],
        head="AutoModelForSequenceClassification",
        problem_type="multi_label_classification",
        **settings,
    )
    change_tokenizer(folder, model_max_length=int(1e30))
    scores = load_tagger(folder).scores(["the cat sat " * 50, "the cat sat " * 60])
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5)  # both truncated
