"""What words add to logits: exact for linear classifiers, gradient x input for trained models."""

import numpy as np
import pytest
import torch

from shared.methods.attributions import gradient_contributions, mean_contributions
from shared.methods.baselines import fit_words
from shared.methods.linear import LinearClassifier, LinearEnsemble
from shared.methods.linear_attributions import (
    linear_contributions,
    logit_weights,
    probe_contributions,
)
from shared.methods.probe import LatentSemanticAnalysis, probe_features
from shared.methods.word_pipelines import WordArguments, word_pipeline
from shared.models.loading import load_tokenizer
from shared.models.networks import TextNgramsConfig, TextNgramsForSequenceClassification
from shared.taggers.loading import Loading

TEXTS = ["crash error crash", "typo docs page", "crash in docs", "docs typo", "error crash", "page"]
LABELS = np.array([[1, 0], [0, 1], [1, 1], [0, 1], [1, 0], [0, 1]])
ALL = [[0, 1]] * len(TEXTS)


def sums(contributions):
    return np.array([[sum(words.values()) for words in of_text] for of_text in contributions])


@pytest.mark.parametrize("name", ["naive_bayes", "logistic_regression", "linear_svm"])
@pytest.mark.parametrize("ngrams", [[1, 1], [1, 2]])
def test_words_and_bias_are_the_logit_of_a_linear_classifier(name, ngrams):
    args = WordArguments(classifier=name, ngram_range=ngrams)
    fitted = fit_words(word_pipeline(args), TEXTS, LABELS)
    features = fitted.features(TEXTS)
    weights = logit_weights(fitted.classifier, features.shape[1])
    contributions = linear_contributions(features, weights, fitted.features.words, ALL)
    logits = fitted.classifier.logits(features)
    np.testing.assert_allclose(sums(contributions) + fitted.classifier.bias, logits, atol=1e-6)
    assert set(contributions[1][0]) >= {"typo", "docs", "page"}


@pytest.mark.parametrize("name", ["naive_bayes", "boosted_trees"])
@pytest.mark.parametrize("strategy", ["label_powerset", "classifier_chain"])
def test_the_word_of_a_label_speaks_for_it_by_any_strategy(name, strategy):
    args = WordArguments(classifier=name, strategy=strategy, tfidf=False)
    texts, labels = TEXTS * 6, np.tile(LABELS, (6, 1))
    fitted = fit_words(word_pipeline(args), texts, labels)
    features = fitted.features(["a crash of the page"])
    weights = logit_weights(fitted.classifier, features.shape[1])
    ((bug, docs),) = linear_contributions(features, weights, fitted.features.words, [[0, 1]])
    assert bug["crash"] > max(0, bug.get("page", 0))
    assert docs["page"] > 0


def test_where_labels_exclude_each_other_only_differences_count():
    rng = np.random.default_rng(0)
    classifier = LinearClassifier(rng.normal(size=(3, 4)), rng.normal(size=3), single_label=True)
    x, words = rng.random((5, 4)), list("abcd")
    from scipy.sparse import csr_matrix

    weights = logit_weights(classifier, 4)
    contributions = linear_contributions(csr_matrix(x), weights, words, [[0, 1, 2]] * 5)
    logits = classifier.logits(x) - classifier.bias
    expected = logits - logits.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(sums(contributions), expected, atol=1e-12)


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("title_weight", [0.0, 0.7])
def test_words_embedding_and_bias_are_the_logit_of_a_probe(wide, title_weight):
    rng = np.random.default_rng(0)
    texts = [f"{text}\n\nthe {text} again" for text in TEXTS]
    options = {"n_components": 3, "pairs": True, "title_weight": title_weight}
    analysis = LatentSemanticAnalysis.fit(texts, **options)
    embeddings, word_weight = rng.normal(size=(len(texts), 5)), 0.4
    tfidf = analysis.features(texts)
    words = analysis.project(texts, tfidf)
    features = probe_features(embeddings, words, word_weight, tfidf if wide else None)
    shape = 2, features.shape[1]
    members = [LinearClassifier(rng.normal(size=shape), rng.normal(size=2)) for _ in range(2)]
    ensemble = LinearEnsemble(members)
    for classifier, parts in ((members[0], members[:1]), (ensemble, members)):
        contributions = probe_contributions(texts, classifier, analysis, word_weight, wide, ALL)
        logits = np.mean([member.logits(features) for member in parts], axis=0)
        rest = [embeddings @ member.weights[:, :5].T + member.bias for member in parts]
        expected = logits - np.mean(rest, axis=0)
        np.testing.assert_allclose(sums(contributions), expected, atol=1e-5)


# --- gradient x input ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def linear_network(tiny_model):
    """A linear classifier on the mean of token vectors, and its tokenizer."""
    tokenizer = load_tokenizer(str(tiny_model))
    config = TextNgramsConfig(
        **{"vocab_size": len(tokenizer), "embedding_size": 8, "ngram_size": 1, "buckets": 2},
        **{"num_labels": 3, "pad_token_id": tokenizer.pad_token_id},
        **{"problem_type": "multi_label_classification"},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = TextNgramsForSequenceClassification(config)
        torch.nn.init.normal_(network.embeddings.weight)
        with torch.no_grad():
            network.embeddings.weight[tokenizer.pad_token_id] = 0
    return network, tokenizer


def test_gradient_times_input_of_a_linear_model_is_weight_times_input(linear_network):
    network, tokenizer = linear_network
    trainer = Loading().trainer(network, tokenizer)
    texts = ["crash error crash", "the docs", "slow memory of the new model, first page"]
    chosen = [[2, 0], [], [1]]
    contributions = gradient_contributions(trainer, tokenizer, texts, chosen)
    assert [len(of_text) for of_text in contributions] == [2, 0, 1]
    table, weights = network.embeddings.weight.detach(), network.classifier.weight.detach()
    for text, labels, of_text in zip(texts, chosen, contributions, strict=True):
        ids = tokenizer(text)["input_ids"]
        for label, words in zip(labels, of_text, strict=True):
            expected = {}
            for token, word in zip(ids, tokenizer.convert_ids_to_tokens(ids), strict=True):
                if token not in tokenizer.all_special_ids:
                    value = float(weights[label] @ table[token]) / len(ids)
                    expected[word] = expected.get(word, 0) + value
            assert words == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_windows_of_a_long_text_share_its_words(pooling, linear_network):
    from shared.methods.windows import Windows

    network, tokenizer = linear_network
    before, tokenizer.model_max_length = tokenizer.model_max_length, 8
    try:
        trainer = Loading().trainer(network, tokenizer)
        texts = ["slow memory", "crash error docs typo slow memory add support page cache " * 2]
        options = {"stride": 2, "max_windows": None}
        contributions = gradient_contributions(
            trainer, tokenizer, texts, [[1], [0, 2]], pooling=pooling, **options
        )
        windows = Windows.of_strings(texts, tokenizer, **options)
        logits = windows.predict(trainer, pooling)
    finally:
        tokenizer.model_max_length = before
    # The special tokens and the bias are the rest of a logit. All windows but the last are as long.
    assert len(windows.documents) > 4
    short, long = contributions
    special = [tokenizer.cls_token_id, tokenizer.sep_token_id]
    of_special = network.classifier(network.embeddings.weight[special].sum(dim=0)).detach().numpy()
    bias = network.classifier.bias.detach().numpy()
    rest = bias[1] + (of_special - bias)[1] / 4
    assert sum(short[0].values()) == pytest.approx(logits[0, 1] - rest, abs=1e-5)
    if pooling == "mean":
        lengths = np.array(windows.rows["length"][1:])
        rest = bias + (of_special - bias) * len(lengths) / lengths.sum()
        for words, label in zip(long, (0, 2), strict=True):
            assert sum(words.values()) == pytest.approx(logits[1, label] - rest[label], abs=1e-5)
    else:
        assert all(len(words) < 8 for words in long)  # of one window


def test_pieces_of_a_word_are_joined_and_its_place_is_in_the_text(linear_network):
    network, tokenizer = linear_network
    trainer = Loading().trainer(network, tokenizer)
    ((words,),) = gradient_contributions(trainer, tokenizer, ["Zebra, zebra!  crash"], [[0]])
    assert list(words) == ["Zebra", ",", "zebra", "!", "crash"]
    tokenizer.init_kwargs["text_prefix"] = "query: "
    try:
        ((words,),) = gradient_contributions(trainer, tokenizer, ["Zebra crash"], [[0]])
    finally:
        del tokenizer.init_kwargs["text_prefix"]
    assert list(words) == ["Zebra", "crash"]


def test_the_mean_of_several_is_weighted():
    parts = [[[{"a": 1.0, "b": 2.0}], []], [[{"a": 4.0}], []]]
    assert mean_contributions(parts) == [[{"a": 2.5, "b": 1.0}], []]
    assert mean_contributions(parts, [3, 1]) == [[{"a": 1.75, "b": 1.5}], []]
