"""Taggers: one text, many, or a data set; the mean of several; loading."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset

from shared.cli.errors import UserError
from shared.evaluation.calibration import Calibration
from shared.evaluation.rules import NEVER, DecisionRule
from shared.methods.baselines import fit_words, naive_bayes
from shared.methods.word_pipelines import WordArguments, word_pipeline
from shared.taggers import (
    MeanScorer,
    Tagger,
    WordScorer,
    load_tagger,
    load_taggers,
    mean_tagger,
)
from shared.taggers import tagger as module
from shared.taggers.folder import read_tagger, write_tagger

TEXTS = ["crash error crash", "typo docs page", "crash in docs", "docs typo", "error crash", "page"]
LABELS = np.array([[1, 0], [0, 1], [1, 1], [0, 1], [1, 0], [0, 1]])
NEW = ["a crash", "the docs page", "unknown words", "error typo"]


@pytest.fixture
def tagger():
    return Tagger(
        ["bug", "docs"],
        DecisionRule((0.5, 0.5)),
        WordScorer(fit_words(naive_bayes(), TEXTS, LABELS)),
    )


def test_the_type_of_the_texts_is_that_of_the_tags(tagger):
    one = tagger(NEW[0])
    assert one["labels"] == ["bug"]
    assert list(one["scores"]) == ["bug", "docs"]
    many = tagger(NEW)
    assert many[0] == one
    assert tagger(tuple(NEW)) == many
    assert tagger(np.array(NEW, dtype=object)) == many
    tags = tagger(text for text in NEW)
    assert next(tags) == one
    assert list(tags) == many[1:]
    dataset = Dataset.from_dict({"id": [1, 2, 3, 4], "text": NEW, "labels": [0, 0, 0, 0]})
    tagged = tagger(dataset)
    assert tagged.column_names == ["id", "text", "labels", "scores"]
    assert tagged["labels"][:] == [tag["labels"] for tag in many]
    assert tagged["scores"][:] == [tag["scores"] for tag in many]
    with pytest.raises(ValueError, match="no column 'body'"):
        tagger(dataset, column="body")


@pytest.mark.parametrize("strategy", ["binary_relevance", "label_powerset", "classifier_chain"])
@pytest.mark.parametrize("classifier", ["naive_bayes", "linear_svm", "boosted_trees"])
def test_classifiers_of_words_are_saved_as_arrays(strategy, classifier, tmp_path):
    args = WordArguments(classifier=classifier, strategy=strategy, analyzer="char_wb")
    scorer = WordScorer(fit_words(word_pipeline(args), TEXTS, LABELS))
    saved = Tagger(["bug", "docs"], DecisionRule((0.5, 0.5)), scorer)
    saved.save(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    np.testing.assert_array_equal(load_tagger(tmp_path).scores(NEW), saved.scores(NEW))


def test_arrays_of_another_classifier_are_refused(tmp_path):
    """Nothing that an edited folder holds makes a tree run forever or read other memory."""
    args = WordArguments(classifier="boosted_trees", strategy="classifier_chain")
    scorer = WordScorer(fit_words(word_pipeline(args), TEXTS, LABELS))
    tagger = Tagger(["bug", "docs"], DecisionRule((0.5, 0.5)), scorer)
    tagger.save(tmp_path)
    contents = read_tagger(tmp_path)
    for name, value in {
        "tree_left": 0,  # a node whose child is the root
        "tree_feature": 99,
        "tree_column": -1,
        "order": 7,
    }.items():
        array = contents.arrays[name]
        contents.arrays[name] = np.full_like(array, value)
        write_tagger(tmp_path, contents)
        with pytest.raises(UserError, match="arrays of the"):
            load_tagger(tmp_path)
        contents.arrays[name] = array


def test_a_generator_is_read_in_blocks(tagger, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_SIZE", 3)
    read = []

    def texts():
        for text in NEW * 2:
            read.append(text)
            yield text

    tags = tagger(texts())
    next(tags)
    assert len(read) == 3
    assert len(list(tags)) == 7
    np.testing.assert_allclose(tagger.scores(NEW * 2)[4:], tagger.scores(NEW))


def test_blank_texts_get_nothing_and_other_values_are_refused(tagger):
    assert tagger(["", "  ", None, "crash"])[:3] == [{"labels": [], "scores": {}}] * 3
    assert tagger([]) == []
    assert tagger.scores([]).shape == (0, 2)
    with pytest.raises(TypeError, match="text 1 is 5, neither a string nor None"):
        tagger(["crash", 5])


def test_a_saved_tagger_gives_the_same_scores(tagger, tmp_path):
    tagger.save(tmp_path / "new" / "folder")
    loaded = load_tagger(tmp_path / "new" / "folder")
    np.testing.assert_array_equal(loaded.scores(NEW), tagger.scores(NEW))
    assert (loaded.label_names, loaded.rule) == (tagger.label_names, tagger.rule)
    strict = load_tagger(tmp_path / "new" / "folder", threshold=1.0)
    assert strict("a crash")["labels"] == []


def test_the_mean_of_taggers_with_their_labels_in_another_order(tagger, tmp_path):
    other = Tagger(
        ["docs", "bug"],
        DecisionRule((0.2, 0.9)),
        WordScorer(fit_words(naive_bayes(), TEXTS[:3], LABELS[:3, ::-1])),
    )
    mean = mean_tagger([tagger, other], folders=["a", "b"])
    expected = (tagger.scores(NEW) + other.scores(NEW)[:, ::-1]) / 2
    np.testing.assert_allclose(mean.scores(NEW), expected)
    assert mean.rule.thresholds == pytest.approx((0.7, 0.35))
    mean.save(tmp_path)
    np.testing.assert_allclose(load_tagger(tmp_path).scores(NEW), expected)


def test_the_members_of_a_mean_can_have_weights(tagger, tmp_path):
    labels = LABELS[:3, ::-1]
    other = Tagger(
        tagger.label_names, tagger.rule, WordScorer(fit_words(naive_bayes(), TEXTS[:3], labels))
    )
    scorer = MeanScorer([tagger, other], ["a", "b"], [0.75, 0.25])
    mean = Tagger(tagger.label_names, tagger.rule, scorer)
    expected = 0.75 * tagger.scores(NEW) + 0.25 * other.scores(NEW)
    np.testing.assert_allclose(mean.scores(NEW), expected)
    mean.save(tmp_path)
    np.testing.assert_allclose(load_tagger(tmp_path).scores(NEW), expected)
    for weights in ([1.0], [1, -1]):
        change(tmp_path, settings={"members": ["a", "b"], "weights": weights})
        with pytest.raises(UserError, match="damaged"):
            load_tagger(tmp_path)


def test_taggers_that_do_not_fit_together_are_refused(tagger):
    other = Tagger(["bug", "speed"], tagger.rule, tagger.scorer)
    with pytest.raises(
        UserError, match="b has other labels than a: only one of them has docs, speed"
    ):
        mean_tagger([tagger, other], names=["a", "b"])
    best = Tagger(["bug", "docs"], DecisionRule(top_k=1), tagger.scorer)
    with pytest.raises(UserError, match="cannot be averaged"):
        mean_tagger([tagger, best])


def change(folder, **values):
    manifest = json.loads((folder / "tagger.json").read_text("utf-8")) | values
    (folder / "tagger.json").write_text(json.dumps(manifest), "utf-8")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"method": "dreams"}, "has no method 'dreams'"),
        ({"method": "embeddings"}, "damaged"),
        ({"method": "mean"}, "damaged"),
        ({"label_names": ["bug"], "rule": {"top_k": 1}}, "damaged"),
        ({"label_names": ["a", "b", "c"], "rule": {"top_k": 1}}, "damaged"),
        ({"settings": {"single_label": False, "words": {"input": "filename"}}}, "damaged"),
        ({"settings": {"single_label": False, "words": {"token_pattern": "("}}}, "damaged"),
        ({"settings": {"single_label": False, "words": {"ngram_range": 3}}}, "damaged"),
        ({"settings": {"single_label": False, "words": {"ngram_range": [2, 1]}}}, "damaged"),
        ({"settings": {"single_label": False, "words": {"words_version": 99}}}, "version 99"),
        ({"settings": {"single_label": False, "words": [1]}}, "damaged"),
    ],
)
def test_a_manifest_that_does_not_fit_the_files_is_refused(tagger, tmp_path, values, expected):
    tagger.save(tmp_path)
    change(tmp_path, **values)
    with pytest.raises(UserError, match=expected):
        load_tagger(tmp_path)


def test_hashes_of_an_encoder_in_another_form_are_refused(tagger, tiny_model, tmp_path):
    tagger.save(tmp_path)
    encoder = {"model": str(tiny_model), "sha256": ["x"], "max_length": 8}
    change(tmp_path, method="embeddings", encoder=encoder)
    with pytest.raises(UserError, match="damaged"):
        load_tagger(tmp_path)


@pytest.mark.parametrize("score", [np.nan, np.inf, -0.5, 1.5])
def test_scores_are_from_0_to_1(tagger, tmp_path, monkeypatch, score):
    tagger.save(tmp_path)
    monkeypatch.setattr(WordScorer, "__call__", lambda self, texts: np.array([[score, 0.5]]))
    with pytest.raises(UserError, match="damaged"):
        load_tagger(tmp_path)


def test_members_of_a_mean_lie_below_it_and_are_no_means(tagger, tmp_path):
    mean = mean_tagger([tagger, tagger])
    mean.save(tmp_path / "mean")  # with names of its own for the members
    assert load_tagger(tmp_path / "mean")("crash") == mean("crash")
    tagger.save(tmp_path / "other")
    for members in (["../other"], [str(tmp_path / "other")], ["."], ["tagger_7"]):
        change(tmp_path / "mean", settings={"members": members})
        with pytest.raises(UserError, match=r"damaged|no tagger"):
            load_tagger(tmp_path / "mean")
    change(tmp_path / "mean", settings={"members": ["tagger_0"]}, label_names=["docs", "bug"])
    with pytest.raises(UserError, match="members with other labels"):
        load_tagger(tmp_path / "mean")


def test_a_folder_that_is_no_tagger_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no config.json"):
        load_tagger(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        load_tagger(tmp_path / "nowhere")


# --- calibration ---------------------------------------------------------------------------------


@pytest.fixture
def calibrated(tagger):
    """The tagger with a calibration that halves the logits, and raises those of docs."""
    points = (((0.4, 0.8, 0.9), (0.9, 0.95, 0.5)), ((0.99, 0.7, 0.1),))
    calibration = Calibration((0.5, 0.5), (0.0, 1.0), False, precision=points)
    return replace(tagger, calibration=calibration)


def test_calibration_changes_scores_but_no_label(tagger, calibrated, tmp_path):
    calibrated.save(tmp_path)
    loaded = load_tagger(tmp_path)
    raw = tagger.scores(NEW)
    np.testing.assert_array_equal(loaded.raw_scores(NEW), raw)
    odds = np.sqrt(raw / (1 - raw)) * [1, np.e]
    np.testing.assert_allclose(loaded.scores(NEW), odds / (1 + odds))
    for before, after in zip(tagger(NEW), loaded(NEW), strict=True):
        assert {*before["labels"]} == {*after["labels"]}
        assert before["scores"] != after["scores"]
    assert loaded.calibrated_rule.thresholds == pytest.approx((0.5, np.e / (1 + np.e)))


def test_a_threshold_of_the_user_is_compared_with_calibrated_scores(calibrated, tmp_path):
    calibrated.save(tmp_path)
    loaded = load_tagger(tmp_path, threshold=0.7)
    for record in loaded(NEW):
        assert {*record["labels"]} == {k for k, score in record["scores"].items() if score >= 0.7}
    loaded.save(tmp_path / "again")
    assert load_tagger(tmp_path / "again")(NEW) == loaded(NEW)


def test_a_mean_averages_calibrated_scores_and_thresholds(tagger, calibrated):
    mean = mean_tagger([tagger, calibrated])
    expected = (tagger.scores(NEW) + calibrated.scores(NEW)) / 2
    np.testing.assert_allclose(mean.scores(NEW), expected)
    assert mean.rule.thresholds == pytest.approx((0.5, (0.5 + np.e / (1 + np.e)) / 2))


def test_a_folder_without_calibration_is_read(tagger, tmp_path):
    tagger.save(tmp_path)
    manifest = json.loads((tmp_path / "tagger.json").read_text("utf-8"))
    del manifest["calibration"]
    (tmp_path / "tagger.json").write_text(json.dumps(manifest | {"format": 2}), "utf-8")
    assert load_tagger(tmp_path)(NEW) == tagger(NEW)


def test_a_target_precision_chooses_the_thresholds(calibrated, tagger, tmp_path, capsys):
    calibrated.save(tmp_path / "calibrated")
    tagger.save(tmp_path / "plain")

    def load(target, *names):
        names = [str(tmp_path / name) for name in names]
        values = {"bf16": False, "encoder": None, "threshold": None, "abstain": None}
        values["target_precision"] = target
        return load_taggers(SimpleNamespace(model=names, **values), "outputs/default")

    (loaded,) = load(0.9, "calibrated")
    assert loaded.rule.thresholds == (0.9, NEVER)
    assert "bug   from a score of 0.75, recall 0.50" in capsys.readouterr().out
    assert load(0.6, "calibrated")[0].rule.thresholds == (0.4, 0.99)
    with pytest.raises(UserError, match=r"plain has no figures of held-out texts"):
        load(0.9, "plain")
    with pytest.raises(UserError, match="takes one tagger"):
        load(0.9, "calibrated", "plain")


def test_a_data_set_has_columns_of_doubt(calibrated):
    tagger = replace(calibrated, unsure_below=0.6)
    texts = ["crash", " "]
    dataset = Dataset.from_dict({"text": texts, "unsure": [1, 2]})
    tagged = tagger(dataset)
    assert tagged.column_names == ["text", "labels", "scores", "confidence", "unsure"]
    records = tagger.tag(texts)
    for name in ("confidence", "unsure"):
        assert tagged[name][:] == [record[name] for record in records]
    assert "unsure" not in calibrated(dataset.remove_columns("unsure")).column_names


def test_texts_of_doubtful_labels_are_unsure(calibrated):
    tagger = replace(calibrated, unsure_below=0.6)
    records = tagger(["crash", "crash docs page typo", " "])
    scores = tagger.scores(["crash", "crash docs page typo"])
    chosen = tagger.choose(tagger.raw_scores(["crash", "crash docs page typo"]))
    right = np.where(chosen, scores, 1 - scores).prod(axis=1)
    assert [record["confidence"] for record in records[:2]] == pytest.approx(right, abs=1e-6)
    assert [record["unsure"] for record in records[:2]] == (right < 0.6).tolist()
    assert records[2] == {"labels": [], "scores": {}, "confidence": None, "unsure": True}
