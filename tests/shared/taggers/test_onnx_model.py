"""Exported taggers give the scores of the tagger that they come from, without torch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import save_tiny_model

from shared.cli.errors import UserError
from shared.evaluation.rules import DecisionRule
from shared.methods import (
    LatentSemanticAnalysis,
    LinearClassifier,
    NearestNeighbours,
    NeighbourVote,
    fit_words,
    naive_bayes,
)
from shared.models.heads import PooledForSequenceClassification
from shared.models.lengths import limit_length
from shared.models.loading import load_encoder, load_sequence_classifier, load_tokenizer
from shared.models.networks import TextCNNConfig, TextCNNForSequenceClassification
from shared.taggers import (
    EmbeddingScorer,
    EncoderReference,
    MeanScorer,
    OnnxEmbedder,
    Tagger,
    WordScorer,
    export_tagger,
    load_tagger,
    quantize_tagger,
    save_trained_model,
)
from shared.taggers.embeddings import _load_embedder
from shared.taggers.folder import TaggerContents
from shared.taggers.loading import Loading

ROOT = Path(__file__).parents[3]
LABELS = ["bug", "docs"]
RULE = DecisionRule((0.5, 0.5))
# Shorter and longer than a window, unknown words, a token of the vocabulary as a word.
TEXTS = [
    "crash error",
    "docs typo in the readme of the server after install",
    "Zürich [SEP] !?",
    "the model is slow " * 40,
    "x",
]
# Scores a folder as a program would that has no torch; the last line says what was imported.
SCRIPT = """
import json, sys
from shared.taggers import load_tagger
tagger = load_tagger(sys.argv[1])
texts = json.loads(sys.argv[2])
print(json.dumps([tagger.scores(texts).tolist(), [tagger(text)["labels"] for text in texts]]))
print("torch" in sys.modules)
"""


def scores_without_torch(folder):
    """Return scores and labels of TEXTS, from a fresh process that must not import torch."""
    command = [sys.executable, "-c", SCRIPT, str(folder), json.dumps(TEXTS)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    values, torch_imported = run.stdout.splitlines()
    assert torch_imported == "False"
    return json.loads(values)


@pytest.fixture(scope="module")
def windowed(tiny_model, tmp_path_factory):
    """The folder of a fine-tuned model that reads long texts in windows, prefix and all."""
    folder = tmp_path_factory.mktemp("windowed")
    tokenizer = load_tokenizer(str(tiny_model), "issue: ")
    encoder = load_encoder(str(tiny_model), tokenizer=tokenizer)
    limit_length(tokenizer, encoder, 24)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = PooledForSequenceClassification.from_encoder(encoder, LABELS)
        torch.nn.init.normal_(model.classifier.weight)
    model.config.windows = {"stride": 4, "max_windows": 3, "pooling": "max"}
    for part in (model, tokenizer):
        part.save_pretrained(folder)
    save_trained_model(folder, LABELS, RULE)
    return folder


@pytest.fixture(scope="module")
def exported(windowed, tmp_path_factory):
    """The exported tagger of `windowed`, saved: its folder."""
    folder = tmp_path_factory.mktemp("exported")
    export_tagger(load_tagger(windowed), tmp_path_factory.mktemp("onnx")).save(folder)
    return folder


def probe(tiny_model, classifier, *analysis):
    reference = EncoderReference.of(str(tiny_model), 20)
    embed = _load_embedder(
        Path(), TaggerContents("embeddings", LABELS, RULE, encoder=reference), Loading()
    )
    return Tagger(LABELS, RULE, EmbeddingScorer(embed, reference, classifier, *analysis))


@pytest.mark.parametrize("name", ["modernbert", "llama", "t5"])
def test_rotary_causal_and_relative_positions_are_exported(name, tmp_path):
    model_folder, folder = tmp_path / name, tmp_path / "tagger"
    save_tiny_model(model_folder, name, ["crash", "error", "the", "model"])
    tokenizer = load_tokenizer(str(model_folder))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = load_sequence_classifier(str(model_folder), LABELS, tokenizer=tokenizer)
    limit_length(tokenizer, model, 24)
    for part in (model, tokenizer):
        part.save_pretrained(folder)
    save_trained_model(folder, LABELS, RULE)
    tagger = load_tagger(folder)
    exported = export_tagger(tagger, tmp_path)
    np.testing.assert_allclose(exported.scores(TEXTS), tagger.scores(TEXTS), atol=1e-5)
    attention = tagger.scorer.trainer.model.config._attn_implementation
    assert attention == model.config._attn_implementation


def test_a_fine_tuned_model_runs_without_torch(windowed, exported):
    expected = load_tagger(windowed)
    scores, labels = scores_without_torch(exported)
    np.testing.assert_allclose(scores, expected.scores(TEXTS), atol=1e-5)
    assert labels == [record["labels"] for record in expected.tag(TEXTS)]
    assert np.ptp(scores, axis=0).min() > 0.01  # or all texts would be alike


def test_a_score_does_not_depend_on_the_texts_beside_it(exported):
    tagger = load_tagger(exported)
    alone = np.concatenate([tagger.scores([text]) for text in TEXTS])
    np.testing.assert_allclose(tagger.scores(TEXTS[::-1])[::-1], alone, atol=1e-6)
    assert tagger.scores([]).shape == (0, 2)


def test_an_exported_tagger_can_be_saved_again(exported, tmp_path):
    load_tagger(exported).save(tmp_path / "copy")
    again = load_tagger(tmp_path / "copy").scores(TEXTS)
    np.testing.assert_array_equal(again, load_tagger(exported).scores(TEXTS))


def test_quantised_weights_are_smaller_and_change_scores_little(exported, tmp_path):
    tagger = load_tagger(exported)
    small = quantize_tagger(tagger, tmp_path)
    difference = np.abs(small.scores(TEXTS) - tagger.scores(TEXTS))
    assert 0 < difference.max() < 0.05
    sizes = [part.scorer.model.path.stat().st_size for part in (small, tagger)]
    assert sizes[0] < 0.8 * sizes[1]


def test_the_mean_of_a_probe_and_of_words_runs_without_torch(tiny_model, tmp_path):
    rng = np.random.default_rng(0)
    analysis = LatentSemanticAnalysis.fit(TEXTS * 2, n_components=4)
    width = 32 + analysis(TEXTS).shape[1]
    classifier = LinearClassifier(rng.normal(size=(2, width)), np.zeros(2))
    words = WordScorer(fit_words(naive_bayes(), TEXTS[:2], np.eye(2, dtype=int)))
    members = [
        probe(tiny_model, classifier, analysis, 0.5),
        Tagger(["docs", "bug"], RULE, words),
    ]
    tagger = Tagger(LABELS, RULE, MeanScorer(members))
    export_tagger(tagger, tmp_path).save(tmp_path / "saved")
    scores, _ = scores_without_torch(tmp_path / "saved")
    np.testing.assert_allclose(scores, tagger.scores(TEXTS), atol=1e-5)


def test_a_lookup_keeps_its_index(exported, tmp_path):
    embed = OnnxEmbedder(load_tagger(exported).scorer.model)  # any output is a vector
    lookup = NearestNeighbours(embed(TEXTS), np.eye(2, dtype=int)[[0, 1, 0, 1, 0]])
    scorer = EmbeddingScorer(embed, None, NeighbourVote(lookup, 1))
    Tagger(LABELS, RULE, scorer).save(tmp_path / "saved")
    scores = load_tagger(tmp_path / "saved").scores(TEXTS)
    np.testing.assert_array_equal(scores.argmax(axis=1), [0, 1, 0, 1, 0])


def test_a_network_from_scratch(tiny_model, tmp_path):
    tokenizer = load_tokenizer(str(tiny_model))
    config = TextCNNConfig(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        filter_widths=[2, 3],
        pooling="mean_max",
        problem_type="single_label_classification",
        id2label=dict(enumerate(LABELS)),
    )
    for part in (TextCNNForSequenceClassification(config), tokenizer):
        part.save_pretrained(tmp_path / "cnn")
    save_trained_model(tmp_path / "cnn", LABELS, DecisionRule(top_k=1))
    tagger = load_tagger(tmp_path / "cnn")
    exported = export_tagger(tagger, tmp_path)
    np.testing.assert_allclose(exported.scores(TEXTS), tagger.scores(TEXTS), atol=1e-5)


def test_without_onnxruntime_one_line_says_what_to_install(
    exported, windowed, monkeypatch, tmp_path
):
    tagger = load_tagger(windowed)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        UserError, match=r'onnxruntime.*not installed; pip install -e "\.\[export\]'
    ):
        load_tagger(exported)
    with pytest.raises(
        UserError, match=r'onnxruntime.*not installed; pip install -e "\.\[export\]'
    ):
        export_tagger(tagger, tmp_path)


def test_a_changed_model_is_refused(exported, tmp_path):
    load_tagger(exported).save(tmp_path / "copy")
    with (tmp_path / "copy" / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match="changed since the tagger was saved"):
        load_tagger(tmp_path / "copy")
