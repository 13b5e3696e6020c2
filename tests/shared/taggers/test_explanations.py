"""Explanations: a planted word is the heaviest, neighbours are the nearest labelled texts."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from shared.data.arguments import DataArguments
from shared.data.corpus import load_data
from shared.evaluation.rules import DecisionRule
from shared.methods.baselines import fit_words, naive_bayes, tfidf_logistic_regression
from shared.methods.embeddings import Embedder
from shared.methods.mean_pooling import MeanPooling
from shared.methods.neighbours import NearestNeighbours, NeighbourVote
from shared.methods.probe import LatentSemanticAnalysis, fit_probe, probe_features
from shared.models.heads import PooledForSequenceClassification
from shared.models.loading import load_encoder, load_tokenizer
from shared.taggers import (
    EmbeddingScorer,
    Explainer,
    Tagger,
    TrainedModelScorer,
    WordScorer,
    mean_tagger,
    tagger_version,
)
from shared.taggers.loading import Loading

NAMES = ["bug", "docs"]
PLANTED = {"bug": "crash", "docs": "typo"}
FILLER = ["the", "model", "run", "data", "file", "after", "version", "install", "batch", "token"]
RULE = DecisionRule((0.5, 0.5))


def planted_texts(n, seed):
    """Return texts of filler with one or both planted words, which alone tell their labels."""
    rng = np.random.default_rng(seed)
    labels = np.array([[1, 0], [0, 1], [1, 1], [0, 0]])[np.arange(n) % 4]
    texts = []
    for row in labels:
        words = [*rng.choice(FILLER, 8), *(PLANTED[NAMES[i]] for i in np.flatnonzero(row))]
        texts.append(" ".join(rng.permutation(words)))
    return texts, labels


TEXTS, LABELS = planted_texts(48, 0)
NEW, _ = planted_texts(8, 1)


@pytest.fixture(scope="module")
def embed(tiny_model):
    tokenizer = load_tokenizer(str(tiny_model))
    encoder = load_encoder(str(tiny_model), tokenizer=tokenizer)
    return Embedder(Loading().trainer(MeanPooling(encoder), tokenizer), tokenizer)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    rows = [
        {"text": text, "labels": [NAMES[i] for i in np.flatnonzero(row)]}
        for text, row in zip(TEXTS, LABELS, strict=True)
    ]
    rows.insert(0, {"text": "a row that nobody has labelled"})
    path = folder / "labelled.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load_data(DataArguments(data=str(path), cache_dir=str(folder)))


def words(pipeline):
    return WordScorer(fit_words(pipeline, TEXTS, LABELS))


def probe(embed):
    analysis = LatentSemanticAnalysis.fit(TEXTS, n_components=4)
    features = probe_features(embed(TEXTS), analysis(TEXTS), 0.5, analysis.features(TEXTS))
    no_names = features[:0], np.zeros(0, int)
    classifier = fit_probe(features, LABELS, *no_names, C=10, balance=1, name_weight=1)
    return EmbeddingScorer(embed, None, classifier, analysis, word_weight=0.5, wide=True)


def lookup(embed):
    return EmbeddingScorer(embed, None, NeighbourVote(NearestNeighbours(embed(TEXTS), LABELS), 3))


def trained_model(tiny_model, steps=20):
    """Fine-tune the tiny model for a few steps, until the planted words decide."""
    tokenizer = load_tokenizer(str(tiny_model))
    encoder = load_encoder(str(tiny_model), tokenizer=tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = PooledForSequenceClassification.from_encoder(encoder, NAMES)
        model.config.problem_type = "multi_label_classification"
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
        for _ in range(steps):
            optimizer.zero_grad()
            model(**batch, labels=torch.tensor(LABELS, dtype=torch.float)).loss.backward()
            optimizer.step()
    return TrainedModelScorer(Loading().trainer(model, tokenizer), tokenizer)


@pytest.mark.parametrize("method", ["naive_bayes", "logistic_regression", "probe", "trained_model"])
def test_a_planted_word_is_the_heaviest(method, embed, tiny_model):
    scorer = {
        "naive_bayes": lambda: words(naive_bayes()),
        "logistic_regression": lambda: words(tfidf_logistic_regression()),
        "probe": lambda: probe(embed),
        "trained_model": lambda: trained_model(tiny_model),
    }[method]()
    tagger = Tagger(NAMES, RULE, scorer)
    explainer = Explainer(tagger)
    tags, explanations = tagger.tag(NEW), explainer(NEW)
    assert any(len(tag["labels"]) == 2 for tag in tags)
    for text, tag, explanation in zip(NEW, tags, explanations, strict=True):
        assert list(explanation["words"]) == tag["labels"]
        for label, heaviest in explanation["words"].items():
            if PLANTED[label] in text:
                assert heaviest[0][0] == PLANTED[label]
            weights = [weight for _, weight in heaviest]
            assert weights == sorted(weights, reverse=True)
            assert min(weights) > 0
    # Named labels are explained in place of the predicted ones.
    (explanation,) = explainer(NEW[:1], [["docs"]])
    assert list(explanation["words"]) == ["docs"]


def test_texts_alone_and_in_a_batch_are_explained_alike(tiny_model):
    tagger = Tagger(NAMES, RULE, trained_model(tiny_model))
    explainer = Explainer(tagger)
    together = explainer(NEW)
    assert explainer([]) == []
    for text, expected in zip(NEW, together, strict=True):
        alone = explainer([text])[0]["words"]
        for label, heaviest in expected["words"].items():
            assert dict(alone[label]) == pytest.approx(dict(heaviest), rel=1e-2, abs=1e-4)


def test_a_vote_names_the_texts_that_the_tagger_holds(embed):
    tagger = Tagger(NAMES, RULE, lookup(embed))
    explainer = Explainer(tagger)
    assert explainer.notes == [
        "no words are named as reasons: the classifier reads nothing but embeddings"
    ]
    explanations = explainer([TEXTS[5], "", None, TEXTS[2]])
    assert explanations[1:3] == [{"neighbours": []}] * 2
    for i, explanation in ((5, explanations[0]), (2, explanations[3])):
        assert len(explanation["neighbours"]) == 3
        cosines = [each["cosine"] for each in explanation["neighbours"]]
        assert cosines == sorted(cosines, reverse=True)
        nearest = explanation["neighbours"][0]
        assert nearest == {
            "cosine": pytest.approx(1, abs=1e-4),
            "number": i + 1,
            "labels": [NAMES[j] for j in np.flatnonzero(LABELS[i])],
        }


@pytest.mark.parametrize("method", ["words", "probe", "lookup", "trained_model", "mean"])
def test_neighbours_come_from_the_reference(method, embed, tiny_model, reference):
    scorers = {
        "words": lambda: words(naive_bayes()),
        "probe": lambda: probe(embed),
        "lookup": lambda: lookup(embed),
        # Training would make texts of the same labels alike.
        "trained_model": lambda: trained_model(tiny_model, steps=0),
    }
    if method == "mean":
        members = [Tagger(NAMES, RULE, scorers[name]()) for name in ("words", "trained_model")]
        tagger = mean_tagger(members)
    else:
        tagger = Tagger(NAMES, RULE, scorers[method]())
    explainer = Explainer(tagger, reference, n_neighbours=2)
    # Row 1 of the file has no labels, and neither have those of the fourth kind.
    wanted = [i for i in range(len(TEXTS)) if LABELS[i].any()][4]
    explanations = explainer(["", TEXTS[wanted]])
    assert explanations[0]["neighbours"] == []
    neighbours = explanations[1]["neighbours"]
    assert neighbours[0] == {
        "cosine": pytest.approx(1, abs=1e-4),
        "row": wanted + 2,
        "text": TEXTS[wanted],
        "labels": [NAMES[j] for j in np.flatnonzero(LABELS[wanted])],
    }
    assert neighbours[1]["cosine"] < neighbours[0]["cosine"]


def test_only_the_rows_that_are_named_are_searched(embed, reference):
    for scorer in (words(naive_bayes()), probe(embed)):
        rows = reference.labelled[:2]
        explainer = Explainer(Tagger(NAMES, RULE, scorer), reference, reference_rows=rows)
        (explanation,) = explainer([TEXTS[5]])
        assert {text["row"] for text in explanation["neighbours"]} == {2, 3}


def test_a_row_and_its_near_duplicates_are_no_neighbours_of_it(embed, tmp_path):
    # Row 3 repeats row 1 but for its case, which makes it a near duplicate and not the same text.
    texts = [TEXTS[0], TEXTS[2], TEXTS[0].upper(), *TEXTS[3:9]]
    rows = [{"text": text, "labels": ["bug", "docs"][i % 2 :]} for i, text in enumerate(texts)]
    path = tmp_path / "labelled.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    reference = load_data(DataArguments(data=str(path), cache_dir=str(tmp_path)))
    assert reference.groups[0] == reference.groups[2]
    for scorer in (words(naive_bayes()), probe(embed)):
        explainer = Explainer(Tagger(NAMES, RULE, scorer), reference, n_neighbours=7)
        queries = [texts[0], "", texts[1]]
        first, blank, second = explainer(queries, [[]] * 3, reference.groups[[0, 0, 1]])
        assert {text["row"] for text in first["neighbours"]} == {2, *range(4, 10)}
        assert blank["neighbours"] == []
        numbers = {text["row"] for text in second["neighbours"]}
        assert len(numbers) == 7
        assert 2 not in numbers


def test_vectors_of_the_reference_are_kept_for_the_next_run(
    embed, reference, tmp_path, monkeypatch
):
    cache = {"cache_dir": str(tmp_path)}
    tagger = Tagger(NAMES, RULE, lookup(embed))
    first = Explainer(tagger, reference, version="a", **cache)(NEW)
    embedded = []
    count = lambda texts: embedded.extend(texts) or embed(texts)  # noqa: E731
    monkeypatch.setattr(tagger.scorer, "embed", count)
    assert Explainer(tagger, reference, version="a", **cache)(NEW) == first
    assert len(embedded) == len(NEW) * 2  # tagged, then searched
    Explainer(tagger, reference, version="b", **cache)
    assert len(embedded) > len(NEW) * 2


def test_the_mean_names_words_of_all_members():
    other = WordScorer(fit_words(naive_bayes(), TEXTS, LABELS[:, ::-1]))
    members = [Tagger(NAMES, RULE, words(naive_bayes())), Tagger(NAMES[::-1], RULE, other)]
    explainer = Explainer(mean_tagger(members))
    expected = Explainer(members[0])
    assert explainer(NEW) == expected(NEW)


def test_a_member_that_reads_embeddings_alone_adds_nothing_to_the_words_of_a_mean(embed):
    by_words, by_neighbours = (
        Tagger(NAMES, RULE, s) for s in (words(naive_bayes()), lookup(embed))
    )
    labels = [NAMES] * len(NEW)
    expected = Explainer(by_words)(NEW, labels)
    for text, actual in zip(
        expected, Explainer(mean_tagger([by_words, by_neighbours]))(NEW, labels), strict=True
    ):
        for label, heaviest in text["words"].items():
            halves = {word: pytest.approx(weight / 2, abs=1e-3) for word, weight in heaviest}
            assert dict(actual["words"][label]) == halves
    explainer = Explainer(mean_tagger([by_neighbours, by_neighbours]))
    assert "nothing but embeddings" in explainer.notes[0]


def test_labels_of_neighbours_are_those_of_the_member_that_holds_them(embed):
    members = [Tagger(NAMES[::-1], RULE, words(naive_bayes())), Tagger(NAMES, RULE, lookup(embed))]
    (explanation,) = Explainer(mean_tagger(members))(TEXTS[:1])
    assert LABELS[0].tolist() == [1, 0]
    assert explanation["neighbours"][0]["labels"] == ["bug"]


def test_vectors_in_bfloat16_are_kept_apart(tmp_path):
    args = SimpleNamespace(model=[str(tmp_path)], bf16=False)
    assert tagger_version(args) != tagger_version(SimpleNamespace(model=args.model, bf16=True))


def test_a_method_that_weighs_no_words_says_so():
    class Constant:
        def __call__(self, texts):
            return np.full((len(texts), 2), 0.7)

    explainer = Explainer(Tagger(NAMES, RULE, Constant()))
    assert len(explainer.notes) == 2
    assert explainer(["a text"]) == [{}]
